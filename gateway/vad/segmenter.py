"""Speech segments of whole recordings and of live audio: network and endpoint detector put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.audio.types import to_float
from gateway.vad.detector import Boundary, DetectorConfig, EndpointDetector, VadEvent
from gateway.vad.fsmn import FsmnVad
from gateway.vad.schedule import OFFLINE_SCHEDULE, STREAMING_SCHEDULE, SilenceSchedule

FloatArray = NDArray[np.float32]

FIXED_MARGIN = 0.6
DYNAMIC_MARGIN = 0.5
DEFAULT_FIXED_SILENCE_MS = 800.0
# Large enough for efficient matrix products, small enough for the cache.
_BLOCK_SAMPLES = 2000 * 160


@dataclass(frozen=True)
class VadOptions:
    """What a request says about endpoints.

    dynamic_silence off means fixed_silence_ms for segments of every length. silence_schedule, steps
    (speech_ms, silence_ms), replaces the built-in schedule. max_segment_ms: no segment is longer.
    speech_margin None is the published model's; lead_ms as in DetectorConfig.
    """

    dynamic_silence: bool = True
    silence_schedule: Sequence[tuple[float, float]] | None = None
    fixed_silence_ms: float = DEFAULT_FIXED_SILENCE_MS
    max_segment_ms: int = 60_000
    speech_margin: float | None = None
    lead_ms: int = 200

    def detector(self, built_in: SilenceSchedule) -> DetectorConfig:
        """The detector's configuration; raises ValueError for options that make no sense."""
        if not self.dynamic_silence:
            schedule, margin = SilenceSchedule.fixed(self.fixed_silence_ms), FIXED_MARGIN
        else:
            schedule = SilenceSchedule.of(self.silence_schedule) if self.silence_schedule else built_in
            margin = DYNAMIC_MARGIN
        margin = margin if self.speech_margin is None else self.speech_margin
        return DetectorConfig(schedule, margin, self.max_segment_ms, self.lead_ms)


@dataclass(frozen=True)
class SpeechSegment:
    """Speech from start_ms to end_ms of the recording."""

    start_ms: int
    end_ms: int

    def samples(self, sample_rate: int = 16000) -> slice:
        """The segment's samples."""
        return slice(self.start_ms * sample_rate // 1000, self.end_ms * sample_rate // 1000)


class _Pairing:
    """Turns start and end events into segments."""

    def __init__(self) -> None:
        self._start_ms = 0

    def segments(self, events: list[VadEvent]) -> list[SpeechSegment]:
        done = []
        for event in events:
            if event.boundary is Boundary.START:
                self._start_ms = event.time_ms
            else:
                done.append(SpeechSegment(self._start_ms, event.time_ms))
        return done


class VadStream:
    """Endpoints of audio that arrives in pieces of any size; the same events for any sizes."""

    def __init__(self, model: FsmnVad, config: DetectorConfig) -> None:
        self._scores = model.stream()
        self.detector = EndpointDetector(config)

    @classmethod
    def live(cls, model: FsmnVad, options: VadOptions | None = None) -> VadStream:
        """For live audio: dynamic silence by the streaming schedule unless `options` say otherwise."""
        return cls(model, (options or VadOptions()).detector(STREAMING_SCHEDULE))

    def push(self, samples: FloatArray) -> list[VadEvent]:
        """Adds samples, float32 [n] at 16 kHz in [-1, 1], and returns the events they bring about."""
        return self.detector.push(self._scores.push(samples))

    def finish(self) -> list[VadEvent]:
        """The last events; running speech ends with the audio. Nothing can be pushed afterwards."""
        return self.detector.push(self._scores.finish(), last=True)


class Segmenter:
    """Speech of one recording that is read from front to back; memory stays bounded whatever its length."""

    def __init__(self, model: FsmnVad, config: DetectorConfig) -> None:
        self._stream = VadStream(model, config)
        self._pairing = _Pairing()

    def push(self, samples: FloatArray | NDArray[np.int16]) -> list[SpeechSegment]:
        """Adds samples [n] at 16 kHz, float32 in [-1, 1] or int16; the segments that ended in them."""
        segments: list[SpeechSegment] = []
        for first in range(0, len(samples), _BLOCK_SAMPLES):
            block = to_float(samples[first : first + _BLOCK_SAMPLES])
            segments += self._pairing.segments(self._stream.push(block))
        return segments

    def finish(self) -> list[SpeechSegment]:
        """The last segment, if speech goes on to the end. Nothing can be pushed afterwards."""
        return self._pairing.segments(self._stream.finish())


def offline_config(options: VadOptions) -> DetectorConfig:
    """For whole recordings. Raises ValueError for options that make no sense."""
    return options.detector(OFFLINE_SCHEDULE)


def segment(
    model: FsmnVad, samples: FloatArray | NDArray[np.int16], options: VadOptions | None = None
) -> list[SpeechSegment]:
    """Speech of a whole recording [n] at 16 kHz, in order, not overlapping."""
    segmenter = Segmenter(model, offline_config(options or VadOptions()))
    return segmenter.push(samples) + segmenter.finish()
