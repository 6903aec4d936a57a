"""From a recording's bytes to samples and the spans of speech in them, off the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from gateway.audio.pool import AudioPool
from gateway.audio.types import SAMPLE_RATE, DecodeLimits, DecodeOptions
from gateway.backends.encoder import Samples
from gateway.config import GatewayConfig
from gateway.vad.fsmn import FsmnVad
from gateway.vad.segmenter import VadOptions, segment
from tandem.errors import InvalidRequest
from tandem.results import RecognizeOptions


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of the recording in samples, end exclusive. `channel` is 0 for the mix, else 1-based."""

    start: int
    end: int
    channel: int = 0


@dataclass(frozen=True, slots=True)
class Prepared:
    """Samples at 16 kHz, the spans to transcribe in order of time, and the seconds each step took.

    channels: float32 [n] each; one, the mix, unless channels were asked for apart.
    """

    channels: tuple[Samples, ...]
    spans: tuple[Span, ...]
    decode_seconds: float
    vad_seconds: float

    @property
    def duration(self) -> float:
        """Seconds of audio."""
        return len(self.channels[0]) / SAMPLE_RATE

    def samples(self, span: Span) -> Samples:
        """The channel that a span is in."""
        return self.channels[max(0, span.channel - 1)]


class Preparer:
    """Decodes recordings in worker processes and segments them in a thread."""

    def __init__(self, pool: AudioPool, vad: FsmnVad) -> None:
        self._pool = pool
        self._vad = vad

    async def prepare(self, audio: bytes | Path, options: RecognizeOptions, max_segment: float) -> Prepared:
        """Raises InvalidAudio, LimitExceeded, Overloaded. `max_segment` is the model's limit in seconds.

        `audio` is a recording's bytes or its file.
        """
        started = time.perf_counter()
        decoded = await self._pool.decode(audio, DecodeOptions(mix=not options.separate_channels))
        channels = tuple(decoded.channel(index) for index in range(decoded.num_channels))
        decode_seconds = time.perf_counter() - started
        started = time.perf_counter()
        tags = range(1, len(channels) + 1) if options.separate_channels else (0,)
        spans: list[Span] = []
        for tag, samples in zip(tags, channels, strict=True):
            spans += await self._spans(samples, tag, options, max_segment)
        spans.sort(key=lambda span: (span.start, span.channel))
        return Prepared(channels, tuple(spans), decode_seconds, time.perf_counter() - started)

    async def _spans(
        self, samples: Samples, channel: int, options: RecognizeOptions, max_segment: float
    ) -> list[Span]:
        if not options.vad:
            return [Span(0, len(samples), channel)]
        found = await asyncio.to_thread(segment, self._vad, samples, vad_options(options, max_segment))
        parts = (part.samples(SAMPLE_RATE) for part in found)
        return [Span(part.start, min(part.stop, len(samples)), channel) for part in parts]


def vad_options(options: RecognizeOptions, max_segment: float) -> VadOptions:
    """What the detector needs of a request; segments never exceed the model's limit."""
    longest = min(max_segment, options.max_segment or max_segment)
    schedule = [(step.max_speech * 1000, step.silence * 1000) for step in options.silence_schedule]
    try:
        return VadOptions(
            dynamic_silence=options.dynamic_silence,
            silence_schedule=schedule or None,
            fixed_silence_ms=options.fixed_silence * 1000,
            max_segment_ms=math.floor(longest * 1000),
        )
    except ValueError as error:
        raise InvalidRequest.of("config.endpoint", str(error)) from error


@contextlib.asynccontextmanager
async def make_preparer(config: GatewayConfig) -> AsyncIterator[Preparer]:
    """A preparer with its worker processes; they end on leaving."""
    limits = DecodeLimits(max_bytes=config.max_audio_bytes, max_seconds=config.max_audio_duration)
    vad = await asyncio.to_thread(FsmnVad, config.vad_model)
    async with AudioPool(config.audio_workers, limits) as pool:
        yield Preparer(pool, vad)
