"""Endpoints of one session: the voice activity detector, by the schedule or by the client's command."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

from gateway.session.config import SessionOptions
from gateway.vad.detector import Boundary, DetectorConfig, EndpointDetector, earliest_cut_ms
from gateway.vad.fbank import FRAME_SHIFT
from gateway.vad.fsmn import FrameScores
from gateway.vad.schedule import STREAMING_SCHEDULE
from gateway.vad.segmenter import VadOptions

_STEP_FRAMES = 6
_SAMPLES_PER_MS = 16
# A pause no session outlives: with the client's endpoints only the longest length cuts.
_NEVER_MS = 1e9

# Before it, most pauses that will end have ended; word times take less.
_END_NEAR_MS = 300

# How late, in frames, the detector hears of audio: stacking of frames, a step, and what a call leaves over.
_LATE_FRAMES = 10 + _STEP_FRAMES
# How much longer than the detector allows an utterance may get: up to what it has not heard of yet when the
# client ends it, and by the begin of its first frame.
_OVER_SECONDS = (_LATE_FRAMES + 4) / 100
# Audio before detected speech that belongs to an utterance whose ends the client sets.
CLIENT_LEAD = 16_000


def _options(options: SessionOptions, max_segment: float) -> VadOptions:
    asked = options.recognize
    longest = min(max_segment - _OVER_SECONDS, asked.max_segment or max_segment)
    longest_ms, lead_ms = int(longest * 1000), round(options.lead * 1000)
    if options.client_endpoint:
        longest_ms -= CLIENT_LEAD // _SAMPLES_PER_MS
        return VadOptions(False, None, _NEVER_MS, longest_ms, options.speech_margin, lead_ms)
    schedule = [(step.max_speech * 1000, step.silence * 1000) for step in asked.silence_schedule]
    return VadOptions(
        asked.dynamic_silence,
        schedule or None,
        asked.fixed_silence * 1000,
        longest_ms,
        options.speech_margin,
        lead_ms,
    )


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Speech begins or ends at sample `at`; `cut` when it goes on because the segment was too long."""

    boundary: Boundary
    at: int
    cut: bool


class Endpoints:
    """Begins and ends of speech in samples, and the pause that running speech may be in."""

    def __init__(self, options: SessionOptions, max_segment: float) -> None:
        config = _options(options, max_segment).detector(STREAMING_SCHEDULE)
        self._detector = EndpointDetector(config)
        self._adopt(config)

    def _adopt(self, config: DetectorConfig) -> None:
        self.never_cut_before = earliest_cut_ms(config) * _SAMPLES_PER_MS
        """Samples from a segment's start in which a cut at its longest length cannot fall."""
        self.look_back = (config.look_back_frames + _LATE_FRAMES) * FRAME_SHIFT
        """How many samples before "now" a begin of speech may still reach back to."""

    def push(self, scores: FrameScores, *, last: bool = False) -> Iterator[Endpoint | None]:
        """Endpoints in steps of 60 ms; None after each step, when the pause may be asked."""
        for first in range(0, max(1, len(scores)), _STEP_FRAMES):
            part = slice(first, first + _STEP_FRAMES)
            final = last and first + _STEP_FRAMES >= len(scores)
            step = FrameScores(scores.silence[part], scores.loudness[part])
            events = self._detector.push(step, last=final)
            for event, following in zip_longest(events, events[1:]):
                cut = following is not None and following.time_ms == event.time_ms
                yield Endpoint(event.boundary, event.time_ms * _SAMPLES_PER_MS, cut)
            yield None

    def reconfigure(self, options: SessionOptions, max_segment: float) -> None:
        """Endpoints by other options from now on."""
        config = _options(options, max_segment).detector(STREAMING_SCHEDULE)
        self._detector.reconfigure(config)
        self._adopt(config)

    @property
    def pause(self) -> float:
        """Seconds the pause in running speech has lasted; 0 while there is speech."""
        return self._detector.pause_ms / 1000

    @property
    def pause_at(self) -> int | None:
        """Where running speech would end, in samples, if its pause went on."""
        end = self._detector.likely_end_ms
        return None if end is None else end * _SAMPLES_PER_MS

    @property
    def is_end_near(self) -> bool:
        """Whether running speech will most probably end in this pause, and soon."""
        due = self._detector.end_due_ms
        return due is not None and due <= _END_NEAR_MS

    @property
    def expected_begin(self) -> int | None:
        """Where speech begins, in samples, or a little later, if what is heard goes on; else None."""
        begin = self._detector.expected_begin_ms
        return None if begin is None else begin * _SAMPLES_PER_MS

    @property
    def is_begin_likely(self) -> bool:
        """Whether expected speech is likely to begin."""
        return self._detector.is_begin_likely

    def end_now(self, sample: int) -> None:
        """Running speech ends at `sample` because the client says so."""
        self._detector.end_now(-(-sample // _SAMPLES_PER_MS))
