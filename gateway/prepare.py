"""From a recording's bytes to samples and the spans of speech in them, off the event loop."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from gateway.audio.pool import AudioPool
from gateway.audio.types import SAMPLE_RATE, DecodeLimits, DecodeOptions, Samples
from gateway.config import GatewayConfig
from gateway.vad.detector import DetectorConfig
from gateway.vad.fsmn import check_vad_model
from gateway.vad.segmenter import VadOptions, offline_config
from tandem.cores import available_cores
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

    channels: [n] each; one, the mix, unless channels were asked for apart.
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
    """Decodes recordings and segments them, in worker processes."""

    def __init__(self, pool: AudioPool) -> None:
        self._pool = pool

    async def prepare(self, audio: bytes | Path, options: RecognizeOptions, max_segment: float) -> Prepared:
        """Raises InvalidAudio, LimitExceeded, Overloaded. `max_segment` is the model's limit in seconds.

        `audio` is a recording's bytes or its file.
        """
        started = time.perf_counter()
        separate = options.separate_channels
        vad = vad_config(options, max_segment) if options.vad else None
        decoded = await self._pool.decode(audio, DecodeOptions(mix=not separate), vad)
        channels = tuple(decoded.channel(index) for index in range(decoded.num_channels))
        speech = decoded.speech if vad else [((0, len(samples)),) for samples in channels]
        spans = [
            Span(start, end, index + 1 if separate else 0)
            for index, stretches in enumerate(speech)
            for start, end in stretches
        ]
        spans.sort(key=lambda span: (span.start, span.channel))
        elapsed = time.perf_counter() - started
        return Prepared(channels, tuple(spans), elapsed - decoded.vad_seconds, decoded.vad_seconds)


def vad_config(options: RecognizeOptions, max_segment: float) -> DetectorConfig:
    """What the detector needs of a request; segments never exceed the model's limit."""
    longest = min(max_segment, options.max_segment or max_segment)
    schedule = [(step.max_speech * 1000, step.silence * 1000) for step in options.silence_schedule]
    try:
        return offline_config(
            VadOptions(
                dynamic_silence=options.dynamic_silence,
                silence_schedule=schedule or None,
                fixed_silence_ms=options.fixed_silence * 1000,
                max_segment_ms=math.floor(longest * 1000),
            )
        )
    except ValueError as error:
        raise InvalidRequest.of("config.endpoint", str(error)) from error


@contextlib.asynccontextmanager
async def make_preparer(config: GatewayConfig) -> AsyncIterator[Preparer]:
    """A preparer with its worker processes; they end on leaving."""
    limits = DecodeLimits(max_bytes=config.max_audio_bytes, max_seconds=config.max_audio_duration)
    check_vad_model(config.vad_model)
    workers = config.audio_workers or available_cores()
    waiting = config.max_waiting_recordings
    async with AudioPool(workers, limits, max_waiting=waiting, vad_model=config.vad_model) as pool:
        yield Preparer(pool)
