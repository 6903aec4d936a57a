"""Readiness follows the encoder tier: a gateway whose encoders are gone should get no new requests."""

from __future__ import annotations

import asyncio
import logging
import time

from gateway.backends.encoder import Encoder
from tandem.rpc.server import TierServer

log = logging.getLogger("tandem.gateway.readiness")

_POLL_SECONDS = 0.5


async def follow_encoders(encoder: Encoder, server: TierServer, grace_seconds: float) -> None:
    """Not ready when no encoder has taken requests for so long, ready as soon as one does. Never returns.

    Liveness stays as it is: a restart of the gateway would bring no encoder back, and end live sessions.
    """
    last_seen = time.monotonic()
    while True:
        if await encoder.takes_requests():
            last_seen = time.monotonic()
        wanted = time.monotonic() - last_seen <= grace_seconds
        if wanted and not server.is_ready:
            await server.ready()
        elif server.is_ready and not wanted:
            log.warning("not ready: no encoder has taken requests for %g s", grace_seconds)
            await server.not_ready()
        await asyncio.sleep(_POLL_SECONDS)
