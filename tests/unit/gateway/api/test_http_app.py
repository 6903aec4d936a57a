"""The application without tiers: readiness, faults of ours, streams that break, pieces of forms."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from gateway.api.http import make_app
from gateway.api.openai import prompt_terms
from gateway.api.openai_format import speaker_letter
from gateway.api.sse import EventResponse
from gateway.pipeline import Recognizer
from gateway.service import GatewayService, ServiceLimits
from tandem.errors import Unavailable


def connect(service: GatewayService, **options: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(make_app(service, **options), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://server")


def service() -> GatewayService:
    return GatewayService(ServiceLimits(1000, 10.0))


async def test_before_the_encoder_is_found_it_lives_and_is_not_ready() -> None:
    async with connect(service()) as client:
        assert (await client.get("/health")).json()["models_loaded"] == []
        for answer in (await client.get("/ready"), await client.post("/asr", files={"file": b"x"})):
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "1"
            assert answer.json()["error"]["reason"] == "UNAVAILABLE"
            assert answer.json()["error"]["retry_after"] == 1.0
        models = await client.get("/v1/models")
        assert models.json()["error"]["type"] == "server_error"


async def test_while_draining_it_is_not_ready() -> None:
    async with connect(service(), is_draining=lambda: True) as client:
        answer = await client.get("/ready")
    assert answer.status_code == 503
    assert "shutting down" in answer.json()["error"]["message"]


class NamedRecognizer:
    """Knows what it serves."""

    model = SimpleNamespace(public_name="demo")


async def test_without_encoders_it_lives_and_is_not_ready() -> None:
    served = service()
    served.recognizer = cast(Recognizer, NamedRecognizer())
    for ready in (True, False):
        async with connect(served, is_ready=lambda ready=ready: ready) as client:
            assert (await client.get("/health")).status_code == 200
            assert (await client.get("/ready")).status_code == (200 if ready else 503)


class BrokenRecognizer:
    """A fault of ours."""

    async def recognize(self, *arguments: object) -> None:
        raise RuntimeError("secret detail")


async def test_a_fault_of_ours_tells_the_request_id_and_no_detail() -> None:
    broken = service()
    broken.recognizer = cast(Recognizer, BrokenRecognizer())
    async with connect(broken, cors_origins=["*"]) as client:
        headers = {"X-Request-ID": "id-1", "Origin": "http://page.example"}
        for route in ("/asr", "/v1/audio/transcriptions"):
            answer = await client.post(route, files={"file": b"x"}, headers=headers)
            assert answer.status_code == 500
            assert "id-1" in answer.json()["error"]["message"]
            assert "secret" not in answer.text
            assert answer.headers["access-control-allow-origin"] == "*"
            assert answer.headers["x-request-id"] == "id-1"


@pytest.mark.parametrize(
    ("failure", "message"),
    [(Unavailable("the decoder is gone"), "the decoder is gone"), (RuntimeError("secret"), "internal error")],
)
async def test_a_stream_that_breaks_ends_with_an_error_event(failure: Exception, message: str) -> None:
    async def events() -> AsyncIterator[dict[str, Any]]:
        yield {"type": "transcript.text.delta", "delta": "b"}
        raise failure

    closed: list[str] = []
    resources = contextlib.AsyncExitStack()
    resources.callback(closed.append, "closed")
    response = EventResponse({"type": "transcript.text.delta", "delta": "a"}, events(), resources)
    transport = httpx.ASGITransport(response, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        text = (await client.get("/")).text
    lines = [json.loads(line.removeprefix("data: ")) for line in text.split("\n\n") if line]
    assert [line.get("delta") for line in lines] == ["a", "b", None]
    assert message in lines[-1]["error"]["message"]
    assert "secret" not in text
    assert closed == ["closed"]


def test_terms_of_a_prompt_are_what_stands_between_commas() -> None:
    assert prompt_terms("ZyntriQix, Digique Plus，北京\nZyntriQix") == ("ZyntriQix", "Digique Plus", "北京")
    assert prompt_terms("Dr. Smith asked about it. Then she left, smiling") == ("smiling",)
    assert prompt_terms("x" * 41) == ()


def test_speakers_get_openais_letters() -> None:
    names = ["SPK0", "SPK25", "SPK26", "SPK51", "SPK52", "agent"]
    assert [speaker_letter(name) for name in names] == ["A", "Z", "AA", "AZ", "BA", "agent"]
