"""Server bootstrap of every tier: listening, health, reflection, readiness, graceful drain on SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from tandem.heap import keep_buffers, settled_objects
from tandem.parent import watch_parent
from tandem.rpc.channels import MAX_MESSAGE_BYTES, server_options
from tandem.rpc.security import ServerTls

log = logging.getLogger("tandem.server")

LIVENESS = "liveness"
"""Health service name that is SERVING as long as the process can answer."""


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Where and how a tier listens. `listen` is `host:port` or `unix:path`; port 0 picks a free one."""

    listen: str
    max_message_bytes: int = MAX_MESSAGE_BYTES
    drain_seconds: float = 30.0
    """How long running calls may go on after SIGTERM."""
    lameduck_seconds: float = 0.0
    """How long to keep accepting calls after health turned NOT_SERVING, so that balancers notice."""
    tls: ServerTls | None = None
    plain_health: str = ""
    """A second address, never encrypted, for health only: Kubernetes cannot probe through TLS."""
    max_connection_age_seconds: float | None = None
    """Ask clients to reconnect after this long, so that new pods get their share."""


@dataclass(slots=True)
class TierServer:
    """One gRPC server with health and reflection.

    Health names: "liveness" is SERVING from the start; "" (readiness) and each service's full name
    are SERVING between `ready()` and the drain.
    """

    config: ServerConfig
    services: Sequence[str]
    server: grpc.aio.Server = field(init=False)
    port: int = field(init=False, default=0)
    interceptors: Sequence[grpc.aio.ServerInterceptor] = ()
    beside: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    """What else drains when this server does, at the same time: each ends one other listener."""
    _health: health.aio.HealthServicer = field(init=False)
    _health_server: grpc.aio.Server | None = field(init=False, default=None)
    _stop: asyncio.Event = field(init=False, default_factory=asyncio.Event)
    _ready: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        options = server_options(self.config.max_message_bytes)
        if self.config.max_connection_age_seconds is not None:
            options.append(("grpc.max_connection_age_ms", int(self.config.max_connection_age_seconds * 1000)))
            options.append(("grpc.max_connection_age_grace_ms", int(self.config.drain_seconds * 1000)))
        self.server = grpc.aio.server(options=options, interceptors=self.interceptors)
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.server)
        reflection.enable_server_reflection(
            [*self.services, health.SERVICE_NAME, reflection.SERVICE_NAME], self.server
        )

    async def start(self) -> None:
        """Bind and listen. Readiness stays NOT_SERVING until `ready()`. OSError where that is impossible."""
        await self._set(LIVENESS, serving=True)
        await self._set_ready(False)
        if self.config.tls is None:
            self.port = _bind(self.server.add_insecure_port, self.config.listen)
        else:
            add = partial(self.server.add_secure_port, server_credentials=self.config.tls.credentials())
            self.port = _bind(add, self.config.listen)
        if self.config.plain_health:
            self._health_server = grpc.aio.server(options=server_options())
            health_pb2_grpc.add_HealthServicer_to_server(self._health, self._health_server)
            _bind(self._health_server.add_insecure_port, self.config.plain_health)
            await self._health_server.start()
        await self.server.start()
        log.info("listening on %s", self.address)

    @property
    def address(self) -> str:
        """`host:port` with the bound port, or the Unix socket as given."""
        if self.config.listen.startswith("unix:"):
            return self.config.listen
        return f"{self.config.listen.rpartition(':')[0]}:{self.port}"

    async def ready(self) -> None:
        """Take requests; without effect once the drain has begun."""
        if not self.is_stopping:
            await self._set_ready(True)

    async def not_ready(self) -> None:
        await self._set_ready(False)

    @property
    def is_ready(self) -> bool:
        return self._ready

    @property
    def is_stopping(self) -> bool:
        """Whether the drain has begun."""
        return self._stop.is_set()

    def request_stop(self) -> None:
        """Begin the drain, as SIGTERM does."""
        self._stop.set()

    def heed_signals(self) -> None:
        """From now on SIGTERM and SIGINT begin the drain."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.request_stop)

    async def until_stop(self, work: Coroutine[object, object, None]) -> bool:
        """Whether the work was done before the drain began, which cancels it. Raises what it raises."""
        task, stop = asyncio.create_task(work), asyncio.create_task(self._stop.wait())
        await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if task.done():
            await task
            return True
        task.cancel()
        await asyncio.wait((task,))
        return False

    async def wait(self) -> None:
        """Run until SIGTERM, SIGINT or `request_stop()`, then drain."""
        self.heed_signals()
        await self._stop.wait()
        await self.stop()

    async def stop(self) -> None:
        """Readiness off, wait the lame-duck time, refuse new calls, let running ones finish."""
        await self._set_ready(False)
        await asyncio.sleep(self.config.lameduck_seconds)
        await asyncio.gather(self.server.stop(self.config.drain_seconds), *(stop() for stop in self.beside))
        if self._health_server is not None:
            await self._health_server.stop(None)
        if self.config.listen.startswith("unix:"):
            Path(self.config.listen.removeprefix("unix:")).unlink(missing_ok=True)

    async def _set_ready(self, value: bool) -> None:
        self._ready = value
        for name in ("", *self.services):
            await self._set(name, serving=value)

    async def _set(self, name: str, *, serving: bool) -> None:
        kind = health_pb2.HealthCheckResponse
        await self._health.set(name, kind.SERVING if serving else kind.NOT_SERVING)


def _bind(add_port: Callable[[str], int], address: str) -> int:
    """The port that is bound, 1 for a Unix socket. OSError where nobody can listen at `address`."""
    try:
        bound = add_port(address)
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address}: in use?") from error
    asked = address.rpartition(":")[2]
    # gRPC takes ports modulo 65536.
    if not address.startswith("unix:") and asked.lstrip("-").isdecimal() and int(asked) not in (0, bound):
        raise OSError(f"cannot listen on {address}: there is no such port")
    return bound


async def run(
    server: TierServer,
    start: Callable[[], Coroutine[object, object, None]],
    close: Callable[[], Awaitable[None]],
    *,
    cancels_start: bool = False,
) -> None:
    """Serve a tier: listen, load (`start`), report ready, wait for a signal, drain, free (`close`).

    A signal that comes before `start` is through ends the process as it is, since threads that load weights
    cannot be stopped; with `cancels_start` it cancels `start`, and `close` frees what is there.
    Where it cannot listen the process ends with status 1, and one line says why.
    """
    watch_parent()
    keep_buffers()
    if cancels_start:
        server.heed_signals()
    try:
        await server.start()
    except OSError as error:
        log.error("%s", error)
        raise SystemExit(1) from error
    try:
        is_started = await server.until_stop(start())
        with settled_objects():
            if is_started:
                await server.ready()
                log.info("ready on %s", server.address)
            await server.wait()
    finally:
        await server.server.stop(None)  # stopped already unless starting failed
        await close()
