"""WS /ws/realtime: the real-time WebSocket service on the HTTP port, where the web page can reach it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect, WebSocketState
from websockets.exceptions import ConnectionClosedError

from gateway.api.realtime_defaults import RealtimeDefaults
from gateway.api.realtime_funasr import Connection
from gateway.api.websocket import chosen_subprotocol, origin_allowed
from gateway.service import GatewayService


def realtime_http_router(
    service: GatewayService, defaults: RealtimeDefaults, allowed_origins: Sequence[str] = ()
) -> APIRouter:
    """The route. Pages may connect from the server's own origin and from `allowed_origins`.

    The server always finds the ends of utterances here, because captions have no COMMIT.
    """
    router = APIRouter()
    settings = replace(defaults, client_endpoint=False)

    @router.websocket("/ws/realtime")
    async def realtime(websocket: WebSocket) -> None:
        if not origin_allowed(websocket, allowed_origins):
            await websocket.close(1008, "origin not allowed")
            return
        await websocket.accept(chosen_subprotocol(websocket))
        await Connection(StarletteSocket(websocket), service, settings).run()

    return router


class StarletteSocket:
    """A Starlette WebSocket with the manners of one from `websockets`: iteration, and ConnectionClosed."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket

    async def __aiter__(self) -> AsyncIterator[str | bytes]:
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            data: bytes | None = message.get("bytes")
            yield message["text"] if data is None else data

    async def send(self, message: str) -> None:
        """Raises ConnectionClosedError when either side has left."""
        self._check_open()
        try:
            await self._websocket.send_text(message)
        except WebSocketDisconnect as left:
            raise ConnectionClosedError(None, None) from left

    async def close(self, code: int, reason: str) -> None:
        """Nothing happens when either side has left."""
        if self._is_open:
            await self._websocket.close(code, reason)

    @property
    def _is_open(self) -> bool:
        states = (self._websocket.client_state, self._websocket.application_state)
        return all(state is WebSocketState.CONNECTED for state in states)

    def _check_open(self) -> None:
        if not self._is_open:
            raise ConnectionClosedError(None, None)
