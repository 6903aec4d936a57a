"""Runs an ASGI app inside the process's own event loop: uvicorn without its signal handlers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp

from gateway.audio.live import MAX_MESSAGE_BYTES
from tandem.rpc.security import ServerTls

log = logging.getLogger("tandem.gateway.http")


@dataclass(frozen=True, slots=True)
class HttpServerConfig:
    """Where to listen (port 0 picks a free one) and how long open requests get on `stop()`."""

    host: str
    port: int
    drain_seconds: float = 30.0
    max_message_bytes: int = MAX_MESSAGE_BYTES
    """Largest WebSocket message."""
    tls: ServerTls | None = None


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The process has signal handlers of its own."""
        yield


class HttpServer:
    """A listening server."""

    def __init__(self, app: ASGIApp, config: HttpServerConfig) -> None:
        """Binds at once; raises OSError when the port is taken."""
        family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
        self._socket = socket.create_server((config.host, config.port), family=family, backlog=2048)
        self.port: int = self._socket.getsockname()[1]
        settings = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            ws_max_size=config.max_message_bytes,
            # A busy client answers late; a dead one is found by the limits of its session.
            ws_ping_timeout=None,
            # Audio does not compress, and a message must not grow when it is unpacked.
            ws_per_message_deflate=False,
            timeout_graceful_shutdown=max(1, round(config.drain_seconds)),
        )
        settings.load()
        if config.tls is not None:
            settings.ssl = config.tls.ssl_context()
        self._server = _Server(settings)
        self._task = asyncio.create_task(self._server.serve([self._socket]))

    async def stop(self) -> None:
        """Refuse new connections, let running requests finish within the drain time. Idempotent."""
        self._server.should_exit = True
        await self._task
        self._socket.close()


@contextlib.asynccontextmanager
async def http_server(app: ASGIApp, config: HttpServerConfig) -> AsyncIterator[HttpServer]:
    """A server that listens while the context is open."""
    server = HttpServer(app, config)
    log.info("listening on http://%s:%d", config.host, server.port)
    try:
        yield server
    finally:
        await server.stop()
