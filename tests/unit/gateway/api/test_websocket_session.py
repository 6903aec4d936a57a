"""The offline WebSocket's session: a client that does not read, and one that asks for what is not there."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fastapi import WebSocket
from starlette.websockets import WebSocketDisconnect

from gateway.api.websocket import OfflineSession
from gateway.pipeline import Recognizer
from gateway.service import GatewayService, ServiceLimits
from tandem.results import RecognizeOptions, Segment, Transcript


class UnreadConnection:
    """What a WebSocket looks like whose peer does not read until `reads` is set."""

    def __init__(self, messages: list[dict[str, Any]]) -> None:
        self.waiting = messages
        self.reads = asyncio.Event()
        self.sent: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        await asyncio.sleep(0)
        return self.waiting.pop(0) if self.waiting else {"type": "websocket.disconnect", "code": 1000}

    async def send_json(self, body: dict[str, Any]) -> None:
        if "sentences" in body:
            await self.reads.wait()
        self.sent.append(body)


async def test_audio_is_read_while_nothing_can_be_sent_and_answers_do_not_pile_up() -> None:
    audio = [{"type": "websocket.receive", "bytes": b"\0" * 320} for _ in range(1000)]
    commands = [{"type": "websocket.receive", "text": text} for text in ("START", "STOP")]
    connection = UnreadConnection([commands[0], *audio, commands[1]])
    session = OfflineSession(cast(WebSocket, connection), GatewayService(ServiceLimits(10_000_000, 3600.0)))
    running = asyncio.create_task(session.run())
    async with asyncio.timeout(10):
        while connection.waiting:
            await asyncio.sleep(0)
    connection.reads.set()
    with pytest.raises(WebSocketDisconnect):
        await asyncio.wait_for(running, 10)
    await session.close()
    assert connection.sent[0] == {"event": "started"}
    assert len([body for body in connection.sent if "sentences" in body]) < 10
    assert [body["event"] for body in connection.sent if "event" in body] == ["started", "error", "stopped"]
    assert connection.sent[-2]["reason"] == "UNAVAILABLE"


class Recording:
    """A recognizer that keeps what it was asked for."""

    def __init__(self, *, has_speakers: bool) -> None:
        self.model = SimpleNamespace(info=SimpleNamespace(has_speakers=has_speakers))
        self.asked: list[RecognizeOptions] = []

    async def recognize(self, audio: object, options: RecognizeOptions) -> Transcript:
        self.asked.append(options)
        return Transcript("hello", (Segment("hello", 0.0, 1.0),), 1.0)


@pytest.mark.parametrize("has_speakers", [True, False])
async def test_speakers_are_promised_and_asked_for_only_where_there_is_a_model(*, has_speakers: bool) -> None:
    recognizer = Recording(has_speakers=has_speakers)
    service = GatewayService(ServiceLimits(10_000_000, 3600.0), cast(Recognizer, recognizer))
    texts: list[dict[str, Any]] = [{"text": text} for text in ("SPK:true", "START", "STOP")]
    connection = UnreadConnection([*texts[:2], {"bytes": b"\0" * 32_000}, texts[2]])
    for message in connection.waiting:
        message["type"] = "websocket.receive"
    connection.reads.set()
    session = OfflineSession(cast(WebSocket, connection), service)
    with pytest.raises(WebSocketDisconnect):
        await asyncio.wait_for(session.run(), 10)
    await session.close()
    assert connection.sent[0] == {"event": "spk_set", "spk": has_speakers}
    assert [options.speakers for options in recognizer.asked] == [has_speakers]
    assert connection.sent[-1] == {"event": "stopped"}
    assert [sentence["text"] for sentence in connection.sent[-2]["sentences"]] == ["hello"]


async def test_a_gateway_that_does_not_know_its_model_yet_promises_no_speakers() -> None:
    connection = UnreadConnection([{"type": "websocket.receive", "text": "SPK:true"}])
    session = OfflineSession(cast(WebSocket, connection), GatewayService(ServiceLimits(10_000_000, 3600.0)))
    with pytest.raises(WebSocketDisconnect):
        await asyncio.wait_for(session.run(), 10)
    await session.close()
    assert connection.sent == [{"event": "spk_set", "spk": False}]
