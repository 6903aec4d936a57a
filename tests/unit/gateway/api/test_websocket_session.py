"""A client that sends and does not read must not stop the reading of its audio."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from fastapi import WebSocket
from starlette.websockets import WebSocketDisconnect

from gateway.api.websocket import OfflineSession
from gateway.service import GatewayService, ServiceLimits


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
