"""The endpoint state machine on made-up scores: properties that hold for any input."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from gateway.vad.detector import Boundary, DetectorConfig, EndpointDetector, VadEvent
from gateway.vad.fsmn import FrameScores
from gateway.vad.schedule import OFFLINE_SCHEDULE, STREAMING_SCHEDULE, SilenceSchedule

_FIXED = DetectorConfig(SilenceSchedule.fixed(800))


def _scores(silence: np.ndarray, loudness: np.ndarray | None = None) -> FrameScores:
    silence = silence.astype(np.float32)
    return FrameScores(silence, np.zeros_like(silence) if loudness is None else loudness.astype(np.float32))


def _pattern(*runs: tuple[int, float]) -> FrameScores:
    """Runs of (frames, silence probability)."""
    return _scores(np.concatenate([np.full(frames, p) for frames, p in runs]))


def _run(config: DetectorConfig, scores: FrameScores) -> list[VadEvent]:
    return EndpointDetector(config).push(scores, last=True)


def _segments(events: list[VadEvent]) -> list[tuple[int, int]]:
    starts = [e.time_ms for e in events if e.boundary is Boundary.START]
    ends = [e.time_ms for e in events if e.boundary is Boundary.END]
    assert [e.boundary for e in events] == [Boundary.START, Boundary.END] * len(starts)
    return list(zip(starts, ends, strict=True))


def _random_scores(seed: int, frames: int = 6000) -> FrameScores:
    random = np.random.default_rng(seed)
    runs: list[np.ndarray] = []
    while sum(map(len, runs)) < frames:
        low, high = ((0.0, 0.3), (0.7, 1.0))[len(runs) % 2]
        runs.append(random.uniform(low, high, int(random.integers(3, 400))))
    return _scores(np.concatenate(runs), random.normal(size=sum(map(len, runs))))


def test_start_looks_back_and_end_keeps_a_tail() -> None:
    events = _run(_FIXED, _pattern((100, 1.0), (100, 0.0), (200, 1.0)))
    # 15 speech frames at 114, 40 frames back; the window falls to 15 at 204, 12 frames kept.
    assert _segments(events) == [(740, 2160)]


def test_the_lead_is_as_long_as_asked_and_reaches_no_earlier_segment() -> None:
    scores = _pattern((100, 1.0), (100, 0.0), (150, 1.0), (100, 0.0))
    config = DetectorConfig(SilenceSchedule.fixed(800), lead_ms=600)
    assert _segments(_run(config, scores)) == [(340, 2160), (2840, 4500)]
    endless = DetectorConfig(SilenceSchedule.fixed(800), lead_ms=5000)
    (first, end), (second, _) = _segments(_run(endless, scores))
    assert first == 0
    assert second == end


def test_speech_up_to_the_end_of_the_audio() -> None:
    assert _segments(_run(_FIXED, _pattern((100, 1.0), (100, 0.0)))) == [(740, 2000)]


@pytest.mark.parametrize("frames", [0, 1, 14])
def test_too_little_speech_is_none(frames: int) -> None:
    assert _run(_FIXED, _pattern((50, 1.0), (frames, 0.0), (50, 1.0))) == []


@pytest.mark.parametrize("margin", [0.6, 0.5])
def test_speech_margin(margin: float) -> None:
    config = DetectorConfig(SilenceSchedule.fixed(800), speech_margin=margin)
    threshold = (1 - margin) / 2
    assert _run(config, _pattern((100, threshold - 0.01)))
    assert not _run(config, _pattern((100, threshold + 0.01)))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("schedule", [OFFLINE_SCHEDULE, STREAMING_SCHEDULE, SilenceSchedule.fixed(300)])
def test_segments_are_ordered_bounded_and_independent_of_chunking(
    seed: int, schedule: SilenceSchedule
) -> None:
    config = DetectorConfig(schedule, max_segment_ms=5000)
    scores = _random_scores(seed)
    whole = _run(config, scores)
    segments = _segments(whole)
    assert len(segments) > 3
    assert all(0 < end - start <= 5000 for start, end in segments)
    assert all(end <= start for (_, end), (start, _) in pairwise(segments))
    assert segments[-1][1] <= len(scores) * 10
    detector, pieces = EndpointDetector(config), []
    for first in range(0, len(scores), 7):
        piece = slice(first, first + 7)
        pieces += detector.push(FrameScores(scores.silence[piece], scores.loudness[piece]))
    pieces += detector.push(_scores(np.empty(0)), last=True)
    assert pieces == whole


def test_unbroken_speech_is_cut_at_its_quietest_point_and_nothing_is_lost() -> None:
    loudness = np.ones(9000)
    loudness[5490:5510] = -3.0
    loudness[1000:1020] = -9.0  # quieter, but too long before the limit
    events = _run(DetectorConfig(OFFLINE_SCHEDULE), _scores(np.zeros(9000), loudness))
    (first, second) = _segments(events)
    assert first[0] == 0 and second[1] == 90_000
    assert first[1] == second[0]
    assert 54_900 <= first[1] <= 55_100


def test_a_pause_at_the_longest_length_ends_the_segment_in_the_pause() -> None:
    config = DetectorConfig(SilenceSchedule.fixed(60_000), max_segment_ms=5000)
    events = _run(config, _pattern((450, 0.0), (300, 1.0), (100, 0.0)))
    first, second = _segments(events)
    assert first[1] == 4660
    assert second[0] > 7000


@pytest.mark.parametrize("schedule", [OFFLINE_SCHEDULE, SilenceSchedule.fixed(100)])
def test_no_segment_is_longer_than_its_longest_wherever_the_pause_begins(schedule: SilenceSchedule) -> None:
    config = DetectorConfig(schedule, max_segment_ms=10_000)
    for spoken in range(920, 1040):
        segments = _segments(_run(config, _pattern((50, 1.0), (spoken, 0.0), (350, 1.0))))
        assert max(end - start for start, end in segments) <= 10_000


def test_schedule_is_read_at_every_frame() -> None:
    schedule = SilenceSchedule.of([(5000, 2000), (10_000, 1000), (math.inf, 300)])
    config = DetectorConfig(schedule)
    # 700 ms pauses: too short for a segment under 10 s, long enough afterwards.
    events = _run(config, _pattern(*[(200, 0.0), (70, 1.0)] * 8))
    first, second = _segments(events)[:2]
    assert first == (0, 10_260)
    assert 10_260 < second[0] < 10_800


def _state(detector: EndpointDetector) -> tuple[int | None, int, int | None]:
    return detector.start_ms, detector.pause_ms, detector.likely_end_ms


def test_pause_and_likely_end_are_known_before_the_end() -> None:
    detector = EndpointDetector(_FIXED)
    detector.push(_pattern((100, 1.0), (100, 0.0)))
    assert _state(detector) == (740, 0, None)
    detector.push(_pattern((40, 1.0)))
    assert detector.pause_ms == 350
    assert detector.likely_end_ms == 2160
    (end,) = detector.push(_pattern((40, 1.0)))
    assert end == VadEvent(Boundary.END, 2160)
    assert _state(detector) == (None, 0, None)


@pytest.mark.parametrize(
    "steps",
    [[], [(0, 100)], [(5000, 100), (5000, 50)], [(10, -1)], [(10, math.inf)], [(math.nan, 5), (10, 5)]],
)
def test_senseless_schedules_are_refused(steps: list[tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match="schedule"):
        SilenceSchedule.of(steps)


def test_schedule_steps() -> None:
    assert [OFFLINE_SCHEDULE.required_ms(s * 1000) for s in (1, 10, 10.01, 25, 35, 45, 60, 61)] == [
        *(2000, 2000, 1000, 800, 600, 400, 200, 100)
    ]
    assert [STREAMING_SCHEDULE.required_ms(s * 1000) for s in (5, 7, 12, 30, 45, 46)] == [
        *(2000, 1500, 1000, 800, 400, 100)
    ]
    assert SilenceSchedule.of([(5000, 1500), (20_000, 800)]).required_ms(1e9) == 800


def test_senseless_configuration_is_refused() -> None:
    with pytest.raises(ValueError, match="max_segment_ms"):
        DetectorConfig(OFFLINE_SCHEDULE, max_segment_ms=999)
    with pytest.raises(ValueError, match="speech_margin"):
        DetectorConfig(OFFLINE_SCHEDULE, speech_margin=1.0)
