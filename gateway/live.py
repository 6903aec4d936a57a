"""Puts the live session engine together from the gateway's configuration."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable

from gateway.config import GatewayConfig
from gateway.pipeline import Recognizer
from gateway.session.backend import RecognizerBackend
from gateway.session.config import PartialPolicy, SessionLimits, SessionOptions
from gateway.session.ears import LiveVad
from gateway.session.registry import RegistryConfig, SessionRegistry
from gateway.session.speakers import SpeakerTracker
from gateway.speakers.online import LiveSpeakers
from gateway.vad.fsmn import FsmnVad

_VOICE_TIMEOUT = 10.0


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


def speaker_trackers(recognizer: Recognizer) -> Callable[[SessionOptions], SpeakerTracker] | None:
    """Makes the speaker tracker of one session; None where the encoder has no speaker model."""
    if not recognizer.model.info.has_speakers:
        return None

    def make(options: SessionOptions) -> SpeakerTracker:
        request_id = f"{options.recognize.request_id or uuid.uuid4().hex[:8]}/voice"
        return LiveSpeakers(
            lambda samples: recognizer.voices(samples, request_id, _VOICE_TIMEOUT),
            options.recognize.num_speakers,
        )

    return make


@contextlib.asynccontextmanager
async def live_sessions(config: GatewayConfig, recognizer: Recognizer) -> AsyncIterator[SessionRegistry]:
    """The registry with its timers running; sessions end on leaving."""
    vad = await asyncio.to_thread(FsmnVad, config.vad_model)
    wanted = registry_config(config)
    backend = RecognizerBackend(recognizer, wanted.limits.final_timeout)
    registry = SessionRegistry(backend, LiveVad(vad), wanted, speaker_trackers(recognizer))
    async with registry.running() as sessions:
        yield sessions
