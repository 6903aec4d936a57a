"""From a recording's bytes to samples and the spans of speech in them, as they are found."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path

from gateway.audio.pool import AudioPool
from gateway.audio.types import DecodedAudio, DecodeLimits, DecodeOptions, Samples
from gateway.config import GatewayConfig
from gateway.vad.detector import DetectorConfig
from gateway.vad.segmenter import VadOptions, offline_config
from gateway.vad.weights import check_vad_model
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
    """A recording that has been decoded: its duration, and what each step took. All in seconds."""

    duration: float
    decode_seconds: float
    vad_seconds: float


Found = tuple[Span, Samples]
"""A span, and the samples of its channel from the start of the recording."""


class Preparation:
    """A recording that is being decoded. Iterating gives its spans in order of time, as they are found."""

    def __init__(self, found: asyncio.Queue[Found | None], work: asyncio.Task[Prepared]) -> None:
        self._found, self._work = found, work

    async def __aiter__(self) -> AsyncIterator[Found]:
        while (item := await self._found.get()) is not None:
            yield item
        # Whatever ended it early is raised here.
        await self._work

    async def finished(self) -> Prepared:
        """Waits for the recording's end. Raises InvalidAudio, LimitExceeded, Overloaded."""
        return await asyncio.shield(self._work)

    @property
    def is_finished(self) -> bool:
        return self._work.done()


class Preparer:
    """Decodes recordings and segments them, in worker processes."""

    def __init__(self, pool: AudioPool) -> None:
        self._pool = pool

    @contextlib.asynccontextmanager
    async def prepare(
        self, audio: bytes | Path, options: RecognizeOptions, max_segment: float
    ) -> AsyncIterator[Preparation]:
        """Decoding goes on while the block runs, and ends with it. `max_segment` is the model's, in seconds.

        `audio` is a recording's bytes or its file. Raises InvalidRequest for endpoints that make no sense.
        """
        vad = vad_config(options, max_segment) if options.vad else None
        found: asyncio.Queue[Found | None] = asyncio.Queue()
        work = asyncio.create_task(self._decode(audio, options, vad, found.put_nowait))
        work.add_done_callback(lambda _: found.put_nowait(None))
        try:
            yield Preparation(found, work)
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def _decode(
        self,
        audio: bytes | Path,
        options: RecognizeOptions,
        vad: DetectorConfig | None,
        emit: Callable[[Found], None],
    ) -> Prepared:
        started = time.perf_counter()
        separate = options.separate_channels

        def emit_speech(decoded: DecodedAudio) -> None:
            for item in _in_order(decoded, separate=separate):
                emit(item)

        # Channels of their own must wait for each other.
        one_by_one = vad is not None and not separate
        mixed = DecodeOptions(mix=not separate)
        decoded = await self._pool.decode(audio, mixed, vad, emit_speech if one_by_one else None)
        if vad is None:
            decoded = replace(decoded, speech=(((0, len(decoded.samples)),),) * decoded.num_channels)
        if not one_by_one:
            emit_speech(decoded)
        elapsed = time.perf_counter() - started
        return Prepared(decoded.seconds, elapsed - decoded.vad_seconds, decoded.vad_seconds)


def _in_order(decoded: DecodedAudio, *, separate: bool) -> list[Found]:
    """The speech of all channels in order of time."""
    found = [
        (Span(start, end, index + 1 if separate else 0), decoded.channel(index))
        for index, stretches in enumerate(decoded.speech)
        for start, end in stretches
    ]
    return sorted(found, key=lambda item: (item[0].start, item[0].channel))


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
