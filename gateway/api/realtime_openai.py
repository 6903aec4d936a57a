"""WS /v1/realtime?intent=transcription: OpenAI's real-time transcription sessions."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect, WebSocketState

from gateway.api.realtime_openai_config import SessionConfig, updated
from gateway.api.realtime_openai_events import Items, error_event, server_event
from gateway.api.websocket import origin_allowed
from gateway.service import GatewayService
from gateway.session.events import Ended, EndReason, Failed
from gateway.session.registry import Held
from tandem.errors import InternalError, InvalidRequest, TandemError

log = logging.getLogger("tandem.gateway.realtime_openai")

_MAX_APPEND = 15 * 1024 * 1024
_GOING_AWAY = 1001
_INTERNAL = 1011


def realtime_router(service: GatewayService, allowed_origins: Sequence[str] = ()) -> APIRouter:
    """The route. Pages may connect from the server's own origin and from `allowed_origins`."""
    router = APIRouter()

    @router.websocket("/v1/realtime")
    async def realtime(websocket: WebSocket) -> None:
        if not origin_allowed(websocket, allowed_origins):
            await websocket.close(1008, "origin not allowed")
            return
        # Browsers name the subprotocol "realtime" in order to pass a key along.
        offered = websocket.scope.get("subprotocols", [])
        await websocket.accept("realtime" if "realtime" in offered else None)
        await TranscriptionSession(websocket, service).run()

    return router


class TranscriptionSession:
    """One connection, one session of the engine."""

    def __init__(self, websocket: WebSocket, service: GatewayService) -> None:
        self._websocket = websocket
        self._service = service
        self._id = f"sess_{uuid.uuid4().hex[:20]}"
        self._config = SessionConfig()
        self._decoder = self._config.audio.input.format.decoder()
        self._items = Items()
        self._held: Held | None = None
        self._reporter: asyncio.Task[None] | None = None
        self._handlers: dict[str, Callable[[dict[str, Any]], Awaitable[None]]] = {
            "session.update": self._update,
            "transcription_session.update": self._update,
            "input_audio_buffer.append": self._append,
            "input_audio_buffer.commit": self._commit,
            "input_audio_buffer.clear": self._clear,
        }

    async def run(self) -> None:
        """Until either side leaves."""
        try:
            sessions = self._service.live()
            self._held = sessions.open(self._config.options(sessions.partials))
            await self._send(server_event("session.created", session=self._described()))
            self._reporter = asyncio.create_task(self._report(self._held))
            while True:
                await self._receive()
        except WebSocketDisconnect:
            return
        except TandemError as error:
            await self._send(error_event(error, None))
            await self._websocket.close(_INTERNAL, error.reason)
        finally:
            if self._reporter is not None:
                self._reporter.cancel()
            if self._held is not None:
                self._service.live().close(self._held)

    async def _receive(self) -> None:
        text = await self._websocket.receive_text()
        event_id = None
        try:
            event = _parsed(text)
            event_id = event.get("event_id")
            handler = self._handlers.get(str(event.get("type")))
            if handler is None:
                raise InvalidRequest.of("type", f"unknown event {event.get('type')!r}")
            await handler(event)
        except InvalidRequest as error:
            await self._send(error_event(error, event_id))

    async def _update(self, event: dict[str, Any]) -> None:
        before, self._config = self._config, updated(self._config, event.get("session"))
        if before.audio.input.format != self._config.audio.input.format:
            self._decoder = self._config.audio.input.format.decoder()
        session = self._live().session
        session.reconfigure(self._config.options(session.options.partials))
        earlier = "transcription_" if str(event["type"]).startswith("transcription_") else ""
        await self._send(server_event(f"{earlier}session.updated", session=self._described()))

    async def _append(self, event: dict[str, Any]) -> None:
        audio = event.get("audio")
        if not isinstance(audio, str) or len(audio) > _MAX_APPEND * 4 // 3:
            raise InvalidRequest.of("audio", f"must be base64 of at most {_MAX_APPEND} bytes")
        try:
            data = base64.b64decode(audio, validate=True)
        except binascii.Error as error:
            raise InvalidRequest.of("audio", f"is not base64: {error}") from error
        await self._live().session.hear(await self._decoder.push(data))

    async def _commit(self, event: dict[str, Any]) -> None:
        if not self._live().session.finalize():
            raise InvalidRequest.of("input_audio_buffer", "holds too little audio to commit")

    async def _clear(self, event: dict[str, Any]) -> None:
        self._live().session.clear()
        await self._send(server_event("input_audio_buffer.cleared"))

    def _live(self) -> Held:
        if self._held is None:
            raise InternalError("there is no session")
        return self._held

    def _described(self) -> dict[str, Any]:
        return {"object": "realtime.transcription_session", "id": self._id, **self._config.model_dump()}

    async def _report(self, held: Held) -> None:
        """The engine's events to the client, until the session ends."""
        async for update in held.session.outbox.attach():
            turns = not held.session.options.client_endpoint
            for event in self._items.events(update.event, turns=turns):
                await self._send(event)
            if isinstance(update.event, Failed):
                await self._send(error_event(update.event.error, None))
                await self._websocket.close(_INTERNAL, update.event.error.reason)
            elif isinstance(update.event, Ended) and update.event.reason is not EndReason.CLIENT:
                await self._websocket.close(_GOING_AWAY, update.event.reason.value)

    async def _send(self, event: dict[str, Any]) -> None:
        if self._websocket.application_state is WebSocketState.CONNECTED:
            await self._websocket.send_text(json.dumps(event, ensure_ascii=False))


def _parsed(text: str) -> dict[str, Any]:
    try:
        event = json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidRequest.of("event", f"is not JSON: {error}") from error
    if not isinstance(event, dict):
        raise InvalidRequest.of("event", "must be an object")
    return event
