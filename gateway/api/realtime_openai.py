"""WS /v1/realtime?intent=transcription: OpenAI's real-time transcription sessions."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect, WebSocketState

from gateway.api.realtime_openai_config import SessionConfig, updated
from gateway.api.realtime_openai_events import Items, ended_event, error_event, rejected, server_event
from gateway.api.websocket import chosen_subprotocol, origin_allowed
from gateway.service import GatewayService
from gateway.session.events import Ended, EndReason, Failed
from gateway.session.registry import Held
from tandem.errors import InternalError, InvalidRequest, TandemError

log = logging.getLogger("tandem.gateway.realtime_openai")

_MAX_APPEND = 15 * 1024 * 1024
_GOING_AWAY = 1001
_INTERNAL = 1011
_EARLIER_HEADER, _EARLIER_SUBPROTOCOL = "realtime=v1", "openai-beta.realtime-v1"


def realtime_router(service: GatewayService, allowed_origins: Sequence[str] = ()) -> APIRouter:
    """The route. Pages may connect from the server's own origin and from `allowed_origins`."""
    router = APIRouter()

    @router.websocket("/v1/realtime")
    async def realtime(websocket: WebSocket) -> None:
        if not origin_allowed(websocket, allowed_origins):
            await websocket.close(1008, "origin not allowed")
            return
        await websocket.accept(chosen_subprotocol(websocket))
        await TranscriptionSession(websocket, service).run()

    return router


def _asks_for_earlier_form(websocket: WebSocket) -> bool:
    """Clients of the beta say so in a header, or from browsers in a subprotocol."""
    beta = websocket.headers.get("openai-beta", "")
    return _EARLIER_HEADER in beta or _EARLIER_SUBPROTOCOL in websocket.scope.get("subprotocols", ())


class TranscriptionSession:
    """One connection, one session of the engine."""

    def __init__(self, websocket: WebSocket, service: GatewayService) -> None:
        self._websocket = websocket
        self._service = service
        self._id = f"sess_{uuid.uuid4().hex[:20]}"
        self._config = SessionConfig()
        self._decoder = self._config.audio.input.format.decoder()
        self._items = Items()
        self._items.earlier = _asks_for_earlier_form(websocket)
        self._expires_at = 0
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
            self._expires_at = int(time.time() + sessions.limits.max_duration)
            await self._tell_session("created", earlier=self._items.earlier)
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
                await asyncio.gather(self._reporter, return_exceptions=True)
            if self._held is not None:
                self._service.live().close(self._held)

    async def _receive(self) -> None:
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1000))
        event_id = None
        try:
            event = _parsed(message.get("text"))
            event_id = event.get("event_id")
            handler = self._handlers.get(str(event.get("type")))
            if handler is None:
                known = ", ".join(self._handlers)
                raise rejected("type", f"{event.get('type')!r} is none of {known}", "invalid_event")
            await handler(event)
        except InvalidRequest as error:
            await self._send(error_event(error, event_id))

    async def _update(self, event: dict[str, Any]) -> None:
        earlier = str(event["type"]).startswith("transcription_")
        before, self._config = self._config, updated(self._config, event.get("session"))
        if before.audio.input.format != self._config.audio.input.format:
            self._decoder = self._config.audio.input.format.decoder()
        session = self._live().session
        session.reconfigure(self._config.options(session.options.partials))
        self._items.earlier |= earlier
        await self._tell_session("updated", earlier=earlier)

    async def _append(self, event: dict[str, Any]) -> None:
        audio = event.get("audio")
        if not isinstance(audio, str) or len(audio) > _MAX_APPEND * 4 // 3:
            raise rejected("audio", f"must be base64 of at most {_MAX_APPEND} bytes")
        try:
            data = base64.b64decode(audio, validate=True)
        except ValueError as error:  # binascii.Error is one; text that is not ASCII raises a plain one
            raise rejected("audio", f"is not base64: {error}") from error
        session = self._live().session
        async for pcm in self._decoder.push(data):
            await session.hear(pcm)

    async def _commit(self, event: dict[str, Any]) -> None:
        if not self._live().session.finalize():
            code = "input_audio_buffer_commit_empty"
            raise rejected("input_audio_buffer", "holds too little audio to commit", code)

    async def _clear(self, event: dict[str, Any]) -> None:
        self._live().session.clear()
        await self._send(server_event("input_audio_buffer.cleared"))

    def _live(self) -> Held:
        if self._held is None:
            raise InternalError("there is no session")
        return self._held

    async def _tell_session(self, what: str, *, earlier: bool) -> None:
        described = {
            "object": "realtime.transcription_session",
            "id": self._id,
            "expires_at": self._expires_at,
            **self._config.described(earlier=self._items.earlier),
        }
        prefix = "transcription_" if earlier else ""
        await self._send(server_event(f"{prefix}session.{what}", session=described))

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
                await self._send(ended_event(update.event.reason))
                await self._websocket.close(_GOING_AWAY, update.event.reason.value)

    async def _send(self, event: dict[str, Any]) -> None:
        if self._websocket.application_state is WebSocketState.CONNECTED:
            # What a client says may be echoed, half a surrogate pair too, which is no text.
            text = json.dumps(event, ensure_ascii=False).encode("utf-8", "replace").decode()
            await self._websocket.send_text(text)


def _parsed(text: str | None) -> dict[str, Any]:
    if text is None:
        raise rejected("event", "must be text: audio goes into input_audio_buffer.append", "invalid_event")
    try:
        event = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise rejected("event", f"is not JSON: {error}", "invalid_event") from error
    if not isinstance(event, dict):
        raise rejected("event", "must be an object", "invalid_event")
    return event
