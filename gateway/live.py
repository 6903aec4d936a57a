"""Puts the live session engine together from the gateway's configuration."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from gateway.config import GatewayConfig
from gateway.pipeline import Recognizer
from gateway.session.backend import RecognizerBackend
from gateway.session.config import PartialPolicy, SessionLimits
from gateway.session.ears import VadEars
from gateway.session.registry import RegistryConfig, SessionRegistry
from gateway.vad.fsmn import FsmnVad


def registry_config(config: GatewayConfig) -> RegistryConfig:
    """What the flags say about live sessions."""
    return RegistryConfig(
        limits=SessionLimits(
            idle=config.session_idle, max_duration=config.session_max, grace=config.resume_grace
        ),
        partials=PartialPolicy(
            interval=config.decode_interval, window=config.partial_window_sec, llm=config.llm_partials > 0
        ),
        max_sessions=config.max_sessions,
        max_llm_partials=config.llm_partials,
    )


@contextlib.asynccontextmanager
async def live_sessions(config: GatewayConfig, recognizer: Recognizer) -> AsyncIterator[SessionRegistry]:
    """The registry with its timers running; sessions end on leaving."""
    vad = await asyncio.to_thread(FsmnVad, config.vad_model)
    wanted = registry_config(config)
    backend = RecognizerBackend(recognizer, wanted.limits.final_timeout)
    async with SessionRegistry(backend, lambda: VadEars(vad), wanted).running() as sessions:
        yield sessions
