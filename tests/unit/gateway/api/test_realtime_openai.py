"""OpenAI's real-time transcription: session objects of both forms, and what ends or disturbs a session."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any, cast

import pytest
from fastapi import WebSocket
from starlette.websockets import WebSocketState

from gateway.api.realtime_openai import TranscriptionSession
from gateway.api.realtime_openai_config import SessionConfig, updated
from gateway.session.config import PartialPolicy, SessionOptions
from tandem.errors import InternalError, InvalidRequest
from tests.unit.gateway.session.instant import InstantService
from tests.unit.gateway.session.simulation import Script

_AT_16K: dict[str, Any] = {"audio": {"input": {"format": {"type": "audio/pcm", "rate": 16_000}}}}
_TRANSCRIPTION = "conversation.item.input_audio_transcription"


class Client:
    """Speaks to a session without a network."""

    def __init__(self, headers: dict[str, str] | None = None) -> None:
        self.server = InstantService()
        self.headers = headers or {}
        self.scope: dict[str, Any] = {}
        self.application_state = WebSocketState.CONNECTED
        self.closed: tuple[int, str] | None = None
        self._sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._received: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def receive(self) -> dict[str, Any]:
        for _ in range(3):  # decodes have their turn
            await asyncio.sleep(0)
        return await self._sent.get()

    async def send_text(self, text: str) -> None:
        self._received.put_nowait(json.loads(text))

    async def close(self, code: int, reason: str) -> None:
        self.closed, self.application_state = (code, reason), WebSocketState.DISCONNECTED
        self._sent.put_nowait({"type": "websocket.disconnect", "code": code})

    async def __aenter__(self) -> Client:
        session = TranscriptionSession(cast(WebSocket, self), self.server.service)
        self._running = asyncio.create_task(session.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._sent.put_nowait({"type": "websocket.disconnect"})
        await self._running

    def put(self, **message: Any) -> None:
        self._sent.put_nowait({"type": "websocket.receive", **message})

    def send(self, kind: str, **fields: Any) -> None:
        self.put(text=json.dumps({"type": kind, **fields}))

    def speak(self, script: Script) -> None:
        for first in range(0, len(script.audio), 1600):
            frame = script.audio[first : first + 1600].tobytes()
            self.send("input_audio_buffer.append", audio=base64.b64encode(frame).decode())

    async def answer(self) -> dict[str, Any]:
        return await asyncio.wait_for(self._received.get(), 10)

    async def until(self, kind: str) -> list[dict[str, Any]]:
        events = [await self.answer()]
        while events[-1]["type"] != kind:
            events.append(await self.answer())
        return events


def options(*changes: dict[str, Any]) -> SessionOptions:
    config = SessionConfig()
    for change in changes:
        config = updated(config, change)
    return config.options(PartialPolicy())


def test_turn_detection_reaches_the_detector() -> None:
    usual = options({})
    assert (usual.recognize.fixed_silence, usual.lead) == (0.5, 0.3)
    assert usual.speech_margin == pytest.approx(0.6)
    server = {"threshold": 0.9, "prefix_padding_ms": 120, "silence_duration_ms": 800}
    strict = options({"turn_detection": None}, {"turn_detection": server})
    assert (strict.recognize.fixed_silence, strict.lead) == (0.8, 0.12)
    assert strict.speech_margin == pytest.approx(0.92)
    assert not strict.recognize.dynamic_silence
    silences = []
    for eagerness in ("low", "auto", "high"):
        turn = {"type": "semantic_vad", "eagerness": eagerness}
        patient = options({"audio": {"input": {"turn_detection": turn}}}).recognize
        assert patient.dynamic_silence
        silences.append(patient.silence_schedule[0].silence)
    assert silences == [4.0, 2.0, 1.0]
    assert options({"turn_detection": None}).client_endpoint


def test_words_and_languages_to_expect_come_in_every_way_openai_has() -> None:
    heard = {"prompt": "Tandem, 北京", "keywords": ["FSMN", "Tandem"], "languages": ["zh"]}
    asked = options({"audio": {"input": {"transcription": heard}}}).recognize
    assert (asked.hotwords, asked.language) == (("FSMN", "Tandem", "北京"), "zh")
    several = options({"input_audio_transcription": {"languages": ["zh", "en"]}})
    assert several.recognize.language is None


def test_a_session_is_described_in_the_form_it_is_asked_in() -> None:
    config = updated(SessionConfig(), {"audio": {"input": {"format": {"type": "audio/pcm", "rate": 16_000}}}})
    config = updated(config, {"input_audio_format": "g711_alaw", "turn_detection": {"threshold": 0.7}})
    current = config.described(earlier=False)["audio"]["input"]
    assert current["format"] == {"type": "audio/pcma", "rate": 8_000}
    turn = {"type": "server_vad", "threshold": 0.7, "prefix_padding_ms": 300, "silence_duration_ms": 500}
    assert current["turn_detection"] == turn
    earlier = config.described(earlier=True)
    assert (earlier["input_audio_format"], earlier["turn_detection"]) == ("g711_alaw", turn)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"type": "realtime"}, "session.type"),
        ({"input_audio_format": "mp3"}, "session.input_audio_format"),
        ({"turn_detection": {"threshold": 2}}, "session.turn_detection.threshold"),
        (
            {"audio": {"input": {"turn_detection": {"type": "semantic_vad", "eagerness": "very"}}}},
            "session.audio.input.turn_detection.eagerness",
        ),
        ({"audio": {"input": {"format": {"rate": 5}}}}, "session.audio.input.format.rate"),
        (
            {"audio": {"input": {"transcription": {"keywords": ["w" * 16_385]}}}},
            "session.audio.input.transcription",
        ),
    ],
)
def test_a_bad_field_has_the_name_that_the_client_used(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        updated(SessionConfig(), change)
    assert [violation.field for violation in refused.value.violations] == [field]


@pytest.mark.parametrize(
    ("headers", "prefix", "items"),
    [
        ({}, "", ["conversation.item.added", "conversation.item.done"]),
        ({"openai-beta": "realtime=v1"}, "transcription_", ["conversation.item.created"]),
    ],
)
async def test_a_turn_is_committed_as_an_item(headers: dict[str, str], prefix: str, items: list[str]) -> None:
    async with Client(headers) as client:
        (created,) = await client.until(f"{prefix}session.created")
        assert created["session"]["expires_at"] > 1_700_000_000
        client.send(f"{prefix}session.update", session=_AT_16K)
        (changed,) = await client.until(f"{prefix}session.updated")
        assert ("audio" in changed["session"]) == (not prefix)
        client.speak(Script().pause(0.5).say(3).pause(1.0))
        events = await client.until(f"{_TRANSCRIPTION}.completed")
    shown = [event["type"] for event in events if not event["type"].endswith(".delta")]
    buffer = [f"input_audio_buffer.{what}" for what in ("speech_started", "speech_stopped", "committed")]
    assert shown == [*buffer, *items, f"{_TRANSCRIPTION}.completed"]
    (item,) = {event["item"]["id"]: event["item"] for event in events if "item" in event}.values()
    assert {event["item_id"] for event in events if "item_id" in event} == {item["id"]}
    assert (item["role"], item["content"][0]["type"]) == ("user", "input_audio")
    assert events[-1]["transcript"] == "w1 w2 w3"
    assert 100 <= events[0]["audio_start_ms"] <= 500


async def test_half_a_surrogate_pair_is_not_echoed_as_no_text_can_hold_it() -> None:
    async with Client() as client:
        await client.answer()
        client.put(text='{"type": "response.create", "event_id": "a\\ud800"}')
        assert (await client.answer())["error"]["event_id"] == "a?"


@pytest.mark.parametrize(
    ("message", "code", "param"),
    [
        ({"bytes": b"\0\0"}, "invalid_event", "event"),
        ({"text": "{"}, "invalid_event", "event"),
        ({"text": "[" * 100_000}, "invalid_event", "event"),
        ({"text": '{"type": "response.create"}'}, "invalid_event", "type"),
        ({"text": '{"type": "input_audio_buffer.append", "audio": "AAA"}'}, "invalid_value", "audio"),
        ({"text": '{"type": "input_audio_buffer.append", "audio": "é"}'}, "invalid_value", "audio"),
        ({"text": '{"type": "input_audio_buffer.append", "audio": "\\ud800"}'}, "invalid_value", "audio"),
        (
            {"text": '{"type": "input_audio_buffer.commit"}'},
            "input_audio_buffer_commit_empty",
            "input_audio_buffer",
        ),
    ],
)
async def test_what_is_no_event_is_answered_and_the_session_goes_on(
    message: dict[str, Any], code: str, param: str
) -> None:
    async with Client() as client:
        await client.answer()
        client.put(**message)
        error = (await client.answer())["error"]
        assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", code, param)
        client.send("session.update", session={})
        assert (await client.answer())["type"] == "session.updated"


@pytest.mark.parametrize(("after", "reason"), [(61.0, "idle"), (3601.0, "max_duration")])
async def test_a_session_that_the_server_ends_says_why(after: float, reason: str) -> None:
    async with Client() as client:
        await client.answer()
        client.server.clock.now = after
        client.server.sessions.tick()
        error = (await client.answer())["error"]
        assert error["code"] == "session_expired"
        while client.closed is None:
            await asyncio.sleep(0)
    assert client.closed == (1001, reason)


async def test_a_turn_that_cannot_be_transcribed_fails_as_an_item() -> None:
    async with Client() as client:
        await client.answer()
        client.server.backend.error = InternalError("the decoder is gone")
        client.send("session.update", session={**_AT_16K, "turn_detection": None})
        client.speak(Script().say(3))
        client.send("input_audio_buffer.commit")
        failed = (await client.until(f"{_TRANSCRIPTION}.failed"))[-1]
        assert failed["item_id"]
        assert failed["error"]["message"] == "the decoder is gone"
        assert set(failed["error"]) == {"type", "code", "message", "param"}
        assert (await client.answer())["error"]["type"] == "server_error"
    assert client.closed is not None
