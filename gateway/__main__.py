"""`python -m gateway`: find the encoder, serve clients, drain on SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

from gateway.api.grpc import SERVICE, AsrServicer
from gateway.api.grpc_batch import SERVICE as BATCH_SERVICE
from gateway.api.grpc_batch import BatchServicer
from gateway.api.http import make_app
from gateway.api.http_server import HttpServerConfig, http_server
from gateway.api.realtime_defaults import realtime_defaults
from gateway.api.realtime_funasr import realtime_server
from gateway.audio.live import MAX_MESSAGE_BYTES
from gateway.backends.pool import connect_encoders
from gateway.batch.manager import BatchManager, batch_limits
from gateway.config import GatewayConfig, parse
from gateway.keys import KeyInterceptor, KeyRing
from gateway.live import live_sessions
from gateway.model import fetch_model
from gateway.pipeline import PipelineLimits, Recognizer
from gateway.prepare import make_preparer
from gateway.readiness import follow_encoders
from gateway.service import GatewayService, ServiceLimits
from gateway.telemetry import live_gauges
from tandem.asr.v1 import asr_pb2_grpc, batch_pb2_grpc
from tandem.rpc.metrics import endpoint
from tandem.rpc.security import ServerTls
from tandem.rpc.server import ServerConfig, TierServer, run

log = logging.getLogger("tandem.gateway")


async def serve(config: GatewayConfig) -> None:
    """Listen at once; ready when the encoder has told what it serves."""
    tls, keys = config.tls.server(), KeyRing(Path(config.api_keys)) if config.api_keys else None
    service = GatewayService(ServiceLimits(config.max_audio_bytes, config.max_audio_duration))
    server = tier_server(config, tls, keys)
    asr_pb2_grpc.add_AsrServiceServicer_to_server(
        AsrServicer(service, local_files=config.local_files), server.server
    )
    batches = BatchManager(service, batch_limits(config))
    batch_pb2_grpc.add_BatchServiceServicer_to_server(BatchServicer(service, batches), server.server)
    resources = contextlib.AsyncExitStack()
    start = partial(open_service, config, service, batches, server, resources)
    async with listening(config, service, server, tls, keys):
        await run(server, start, resources.aclose, cancels_start=True)


def tier_server(config: GatewayConfig, tls: ServerTls | None, keys: KeyRing | None) -> TierServer:
    """The gRPC server, without its services."""
    return TierServer(
        ServerConfig(
            config.listen,
            max_message_bytes=config.max_audio_bytes + 1024 * 1024,
            drain_seconds=config.drain_seconds,
            lameduck_seconds=config.lameduck_seconds,
            tls=tls,
            plain_health=config.health_listen,
            max_connection_age_seconds=config.max_connection_age or None,
        ),
        [SERVICE, BATCH_SERVICE],
        interceptors=[KeyInterceptor(keys)] if keys else [],
    )


async def open_service(
    config: GatewayConfig,
    service: GatewayService,
    batches: BatchManager,
    server: TierServer,
    resources: contextlib.AsyncExitStack,
) -> None:
    """Wait for the encoder; from then on recordings, batches and live sessions work. `resources` end it."""
    encoder = connect_encoders(config.encoder, config.tls.upstream(), config.live_encode_timeout)
    resources.push_async_callback(encoder.close)
    preparer = await resources.enter_async_context(make_preparer(config))
    limits = PipelineLimits(of_all_recordings=config.max_parallel_segments)
    recognizer = Recognizer(await fetch_model(encoder), encoder, preparer, limits)
    await resources.enter_async_context(batches)
    service.sessions = await resources.enter_async_context(live_sessions(config, recognizer))
    server.beside.append(partial(service.sessions.drain, config.drain_seconds))
    resources.enter_context(live_gauges(service.sessions))
    service.recognizer = recognizer
    following = asyncio.create_task(follow_encoders(encoder, server, config.encoder_grace))
    resources.callback(following.cancel)


@contextlib.asynccontextmanager
async def listening(
    config: GatewayConfig,
    service: GatewayService,
    server: TierServer,
    tls: ServerTls | None,
    keys: KeyRing | None,
) -> AsyncIterator[None]:
    """HTTP, real-time WebSocket and metrics, where they have a port."""
    defaults = realtime_defaults(config)
    async with contextlib.AsyncExitStack() as servers:
        if config.http_port:
            app = make_app(
                service,
                cors_origins=config.cors_origin,
                is_draining=lambda: server.is_stopping,
                is_ready=lambda: server.is_ready,
                realtime=defaults,
                keys=keys,
            )
            largest = min(config.max_audio_bytes, MAX_MESSAGE_BYTES)
            http = HttpServerConfig(config.http_host, config.http_port, config.drain_seconds, largest, tls)
            server.beside.append((await servers.enter_async_context(http_server(app, http))).stop)
        if config.realtime_port:
            await servers.enter_async_context(
                realtime_server(
                    service, config.realtime_host, config.realtime_port, defaults, keys=keys, tls=tls
                )
            )
        servers.enter_context(endpoint(config.metrics_port))
        yield


def main() -> int:
    config = parse()
    logging.basicConfig(level=config.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        asyncio.run(serve(config))
    except (OSError, ValueError) as error:
        log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
