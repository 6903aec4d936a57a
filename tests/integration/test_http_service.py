"""What all routes share: errors, limits while uploading, CORS, health, the API page, clients that leave."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest

from tandem.decoder.v1 import decoder_pb2, decoder_pb2_grpc
from tests.integration.conftest import MAX_AUDIO_BYTES
from tests.support.http import PAGE, HttpStack

ROUTES = ("/asr", "/v1/audio/transcriptions")


def reason_of(answer: httpx.Response) -> str:
    """The reason in the error's own form: ours, or OpenAI's."""
    error = answer.json()["error"]
    if "reason" in error:
        assert set(error) >= {"code", "message", "reason", "request_id"}
        assert error["code"] == answer.status_code
        return str(error["reason"])
    assert set(error) == {"message", "type", "param", "code"}
    return str(error["code"]).upper()


@pytest.mark.parametrize("route", ROUTES)
def test_what_is_no_recording_is_refused(http: httpx.Client, route: str) -> None:
    noise = http.post(route, files={"file": b"this is no recording" * 50})
    assert (noise.status_code, reason_of(noise)) == (400, "INVALID_AUDIO")
    empty = http.post(route, files={"file": b""})
    assert (empty.status_code, reason_of(empty)) == (400, "INVALID_REQUEST")
    as_text = http.post(route, data={"file": "meeting.wav"}, files={"other": (None, "x")})
    assert as_text.status_code == 400
    assert "-F file=@NAME" in as_text.json()["error"]["message"]
    missing = http.post(route, files={"language": (None, "zh")})
    assert (missing.status_code, reason_of(missing)) == (400, "INVALID_REQUEST")
    no_form = http.post(route, json={"file": "meeting.wav"})
    assert (no_form.status_code, reason_of(no_form)) == (400, "INVALID_REQUEST")
    torn = http.post(
        route,
        content=b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nabc',
        headers={"content-type": "multipart/form-data; boundary=b"},
    )
    assert (torn.status_code, reason_of(torn)) == (400, "INVALID_REQUEST")


@pytest.mark.parametrize("route", ROUTES)
def test_more_bytes_than_allowed_are_refused_announced_or_not(http: httpx.Client, route: str) -> None:
    big = b"\0" * (MAX_AUDIO_BYTES + 2_000_000)
    announced = http.post(route, files={"file": big})
    assert (announced.status_code, reason_of(announced)) == (413, "LIMIT_EXCEEDED")
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'

    def chunks() -> Iterator[bytes]:
        yield head
        for offset in range(0, len(big), 100_000):
            yield big[offset : offset + 100_000]
        yield b"\r\n--b--\r\n"

    headers = {"content-type": "multipart/form-data; boundary=b"}
    chunked = http.post(route, content=chunks(), headers=headers)
    assert (chunked.status_code, reason_of(chunked)) == (413, "LIMIT_EXCEEDED")


def test_fields_of_any_size_and_number_are_refused(http: httpx.Client, english: Path) -> None:
    file = {"file": english.read_bytes()}
    long = http.post("/asr", files=file, data={"hotwords": "x" * 2_000_000})
    assert (long.status_code, reason_of(long)) == (413, "LIMIT_EXCEEDED")
    many = http.post("/asr", files=file, data={f"field{i}": "x" for i in range(200)})
    assert (many.status_code, reason_of(many)) == (413, "LIMIT_EXCEEDED")


def test_a_page_gets_in_only_from_an_allowed_origin(http: httpx.Client) -> None:
    ask = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    allowed = http.options("/asr", headers={"Origin": PAGE, **ask})
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == PAGE
    assert "authorization" in allowed.headers["access-control-allow-headers"]
    refused = http.options("/asr", headers={"Origin": "http://elsewhere.example", **ask})
    assert "access-control-allow-origin" not in refused.headers
    failed = http.post("/asr", headers={"Origin": PAGE}, files={"file": b""})
    assert failed.status_code == 400
    assert failed.headers["access-control-allow-origin"] == PAGE


def test_health_readiness_and_the_api_page(http: httpx.Client) -> None:
    assert http.get("/health").json()["status"] == "ok"
    assert http.get("/ready").json() == {"status": "ready", "model": "nano"}
    assert "swagger" in http.get("/docs").text
    api = http.get("/openapi.json").json()
    forms = {
        route: api["paths"][route]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
        for route in ROUTES
    }
    guide = {"file", "language", "hotwords", "spk", "timestamp"}
    assert guide <= set(forms["/asr"]["properties"])
    assert {"model", "prompt", "stream"} <= set(forms["/v1/audio/transcriptions"]["properties"])
    assert all(form["properties"]["file"]["format"] == "binary" for form in forms.values())


def test_unknown_routes_answer_in_the_form_of_their_api(http: httpx.Client) -> None:
    assert reason_of(http.get("/nowhere")) == "NOT_FOUND"
    assert reason_of(http.get("/v1/nowhere")) == "NOT_FOUND"
    wrong = http.get("/asr")
    assert (wrong.status_code, reason_of(wrong)) == (405, "METHOD_NOT_ALLOWED")


def test_a_usable_request_id_is_kept_and_others_replaced(http: httpx.Client) -> None:
    assert http.get("/health", headers={"X-Request-ID": "abc-1"}).headers["x-request-id"] == "abc-1"
    forged = http.get("/health", headers={"X-Request-ID": "a b;c"}).headers["x-request-id"]
    assert forged not in ("", "a b;c")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_ends_its_work(
    http_services: HttpStack, meeting: Path, stream: bool
) -> None:
    async def upload() -> None:
        route = "/v1/audio/transcriptions" if stream else "/asr"
        fields = {"max_new_tokens": "900", "max_segment": "5", **({"stream": "true"} if stream else {})}
        async with httpx.AsyncClient(base_url=http_services.url, timeout=60) as client:
            await client.post(route, files={"file": meeting.read_bytes()}, data=fields)

    assert await running(http_services) == 0
    request = asyncio.create_task(upload())
    await until(http_services, busy=True)
    assert not request.done()
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    left = time.monotonic()
    await until(http_services, busy=False)
    # All of it takes a minute.
    assert time.monotonic() - left < 3


async def running(services: HttpStack) -> int:
    """Requests that the decoder works on or keeps waiting."""
    async with grpc.aio.insecure_channel(services.stack.config.addresses.decoder) as channel:
        stub: decoder_pb2_grpc.DecoderServiceAsyncStub = decoder_pb2_grpc.DecoderServiceStub(channel)
        load = await stub.GetLoad(decoder_pb2.GetLoadRequest(), timeout=5)
        return load.running_requests + load.waiting_requests


async def until(services: HttpStack, *, busy: bool) -> None:
    async with asyncio.timeout(20):
        while (await running(services) > 0) is not busy:
            await asyncio.sleep(0.05)
