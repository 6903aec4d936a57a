"""FSMN-VAD's endpoint state machine: frame scores in, starts and ends of speech out.

Constants and transitions are those of the published model (window 200 ms, 150 ms of speech to start,
200 ms of lead, 100 ms of look-ahead). Two things differ: the required silence follows a schedule at every
frame, and a segment that reaches its longest length is cut at its quietest recent point.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum

import numpy as np

from gateway.vad.fsmn import FrameScores, frame_ready_ms
from gateway.vad.schedule import SilenceSchedule

FRAME_MS = 10
_WINDOW = 20
_WINDOW_MASK = (1 << _WINDOW) - 1
_SPEECH_FRAMES_TO_START = 15
_SPEECH_FRAMES_TO_STOP = 15
# With so many, speech may be about to begin; with so many, it is, except for bursts of loud noise.
_SPEECH_FRAMES_TO_EXPECT = 5
_SPEECH_FRAMES_LIKELY = 9
_TAIL = 11
# The window needs this long to fall, so that much of the required silence has already passed.
_WINDOW_FALL_MS = 150.0
# The schedule is read on the clock of the recognizer's 60 ms frames.
_CLOCK_MS = 60
_MAX_CUT_SEARCH_FRAMES = 1000
_CUT_SMOOTHING = 15
# How many nats of loudness a certain silence is worth when looking for the quietest point.
_SILENCE_WEIGHT = 4.0
MIN_SEGMENT_MS = 1000


@dataclass(frozen=True)
class DetectorConfig:
    """Where speech is cut.

    speech_margin: a frame is speech if p(speech) >= p(silence) + speech_margin. max_segment_ms: no
    segment is longer. lead_ms: how long before the window that tells speech its segment begins.
    """

    schedule: SilenceSchedule
    speech_margin: float = 0.6
    max_segment_ms: int = 60_000
    lead_ms: int = 200

    def __post_init__(self) -> None:
        if self.max_segment_ms < MIN_SEGMENT_MS:
            raise ValueError(f"max_segment_ms {self.max_segment_ms} is less than {MIN_SEGMENT_MS}")
        if not 0 <= self.speech_margin < 1:
            raise ValueError(f"speech_margin {self.speech_margin} is not in [0, 1)")
        if self.lead_ms < 0:
            raise ValueError(f"lead_ms {self.lead_ms} is negative")

    @property
    def look_back_frames(self) -> int:
        """How far before the frame that tells speech its segment may begin."""
        return _WINDOW + self.lead_ms // FRAME_MS


class Boundary(Enum):
    """What happens at the time of an event."""

    START = "start"
    END = "end"


@dataclass(frozen=True)
class VadEvent:
    """A start or end of speech, in ms from the start of the audio."""

    boundary: Boundary
    time_ms: int


def _cut_search(max_frames: int) -> int:
    """How many of a segment's last frames are searched for the quietest one to cut at."""
    return min(_MAX_CUT_SEARCH_FRAMES, max_frames // 3)


def earliest_cut_ms(config: DetectorConfig) -> int:
    """No segment that reaches its longest length is cut earlier than this after its start."""
    max_frames = config.max_segment_ms // FRAME_MS
    return (max_frames - _cut_search(max_frames)) * FRAME_MS


class EndpointDetector:
    """Events of one recording or live stream, frame by frame."""

    def __init__(self, config: DetectorConfig) -> None:
        self._config = config
        self._max_frames = config.max_segment_ms // FRAME_MS
        self._next_frame = 0
        self._free_from = 0
        self._window = 0
        self._window_is_speech = False
        self._start: int | None = None
        self._silent_frames = 0
        self._cut_costs: deque[float] = deque(maxlen=_cut_search(self._max_frames))
        self._events: list[VadEvent] = []

    @property
    def start_ms(self) -> int | None:
        """Where the running segment starts; None outside speech."""
        return None if self._start is None else self._start * FRAME_MS

    @property
    def pause_ms(self) -> int:
        """How long the pause in the running segment has lasted; 0 while there is speech."""
        return self._silent_frames * FRAME_MS if self._start is not None else 0

    @property
    def likely_end_ms(self) -> int | None:
        """Where the running segment ends if its pause goes on; None while there is speech."""
        if self._start is None or not self._silent_frames:
            return None
        return (self._speech_end(self._next_frame - 1) + 1) * FRAME_MS

    @property
    def end_due_ms(self) -> float | None:
        """How much longer the pause must last to end the segment; None while there is speech."""
        if self._start is None or not self._silent_frames:
            return None
        return self._required_ms(self._next_frame - 1) - self._silent_frames * FRAME_MS

    @property
    def expected_begin_ms(self) -> int | None:
        """Where a segment begins if all frames to come are speech, else later; None in one or in silence."""
        active = self._window.bit_count()
        if self._start is not None or active < _SPEECH_FRAMES_TO_EXPECT:
            return None
        frame = self._next_frame - 1 + _SPEECH_FRAMES_TO_START - active
        return max(self._free_from, frame - self._config.look_back_frames) * FRAME_MS

    @property
    def is_begin_likely(self) -> bool:
        """Whether the expected segment is likely to begin."""
        return self._start is None and self._window.bit_count() >= _SPEECH_FRAMES_LIKELY

    def push(self, scores: FrameScores, *, last: bool = False) -> list[VadEvent]:
        """Events of the next frames; with `last`, running speech ends at the last frame."""
        speech = 1.0 - scores.silence >= scores.silence + np.float32(self._config.speech_margin)
        costs = scores.loudness - _SILENCE_WEIGHT * scores.silence
        final = len(scores) - 1 if last else -1
        for index, (is_speech, cost) in enumerate(zip(speech.tolist(), costs.tolist(), strict=True)):
            self._cut_costs.append(cost)
            self._step(is_speech, index == final)
        if last and not len(scores) and self._start is not None:
            self._end(self._next_frame - 1)
        events, self._events = self._events, []
        return events

    def reconfigure(self, config: DetectorConfig) -> None:
        """Other endpoints from the next frame on; running speech goes on."""
        self._config = config
        self._max_frames = config.max_segment_ms // FRAME_MS
        self._cut_costs = deque(self._cut_costs, maxlen=_cut_search(self._max_frames))

    def end_now(self, time_ms: int) -> None:
        """The client ends the segment at `time_ms`, at or after the last frame; the next starts no earlier.

        No event is reported: the client knows.
        """
        self._end(max(self._next_frame, -(-time_ms // FRAME_MS)) - 1)
        self._events.clear()

    def _step(self, is_speech: bool, is_last: bool) -> None:
        frame = self._next_frame
        self._next_frame += 1
        self._window = ((self._window << 1) | is_speech) & _WINDOW_MASK
        active = self._window.bit_count()
        was_speech = self._window_is_speech
        if was_speech:
            self._window_is_speech = active > _SPEECH_FRAMES_TO_STOP
        else:
            self._window_is_speech = active >= _SPEECH_FRAMES_TO_START
        if was_speech or self._window_is_speech:
            self._silent_frames = 0
            if self._start is None:
                self._begin(max(self._free_from, frame - self._config.look_back_frames))
            elif frame - self._start + 1 > self._max_frames:
                self._cut(frame)
        else:
            self._silence_step(frame)
        if is_last and self._start is not None:
            self._end(frame)

    def _silence_step(self, frame: int) -> None:
        self._silent_frames += 1
        if self._start is None:
            self._free_from = max(self._free_from, frame - self._config.look_back_frames)
            return
        required_ms = self._required_ms(frame)
        if self._silent_frames * FRAME_MS >= required_ms:
            end = frame - max(0, int(required_ms / FRAME_MS) - _TAIL)
            self._end(min(end, self._start + self._max_frames - 1))
        elif frame - self._start + 1 > self._max_frames:
            self._end(min(self._speech_end(frame), frame - 1))

    def _required_ms(self, frame: int) -> float:
        """Silence still required after the window has fallen, for the segment as long as it is now."""
        assert self._start is not None
        heard_ms = -(-frame_ready_ms(frame) // _CLOCK_MS) * _CLOCK_MS
        speech_ms = heard_ms - self._start * FRAME_MS
        return max(0.0, self._config.schedule.required_ms(speech_ms) - _WINDOW_FALL_MS)

    def _speech_end(self, frame: int) -> int:
        """Last frame of the segment if the pause that `frame` is in ends it."""
        return min(frame, frame - self._silent_frames + _TAIL)

    def _begin(self, frame: int) -> None:
        self._start = frame
        self._events.append(VadEvent(Boundary.START, frame * FRAME_MS))

    def _end(self, frame: int) -> None:
        self._events.append(VadEvent(Boundary.END, (frame + 1) * FRAME_MS))
        self._start = None
        self._free_from = frame + 1
        self._window = 0
        self._window_is_speech = False
        self._silent_frames = 0

    def _cut(self, frame: int) -> None:
        """Ends a segment inside running speech; the next one starts where it ends."""
        costs = np.array(self._cut_costs)
        kernel = np.ones(min(_CUT_SMOOTHING, len(costs)))
        quietest = int(np.convolve(costs, kernel, mode="valid").argmin()) + len(kernel) // 2
        last = min(frame - len(costs) + 1 + quietest, frame - 1)
        self._events.append(VadEvent(Boundary.END, (last + 1) * FRAME_MS))
        self._begin(last + 1)
