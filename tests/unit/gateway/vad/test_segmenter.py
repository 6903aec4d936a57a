"""Whole recordings and live audio through the real network: same endpoints whatever the input's form."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from gateway.vad.detector import Boundary, VadEvent
from gateway.vad.fsmn import FsmnVad
from gateway.vad.segmenter import SpeechSegment, VadOptions, VadStream, segment
from tests.support.recordings import recording, vad_weights


@pytest.fixture(scope="module")
def model() -> FsmnVad:
    return FsmnVad(vad_weights())


def _feed(stream: VadStream, samples: np.ndarray, sizes: np.random.Generator, largest: int) -> list[VadEvent]:
    events, first = [], 0
    while first < len(samples):
        size = int(sizes.integers(0, largest))
        events += stream.push(samples[first : first + size])
        first += size
    return events + stream.finish()


@pytest.mark.parametrize("largest", [100, 2000, 30_000])
def test_live_events_do_not_depend_on_chunk_sizes(model: FsmnVad, largest: int) -> None:
    samples = recording("dialogue_2spk.flac")
    whole = VadStream.live(model)
    expected = whole.push(samples) + whole.finish()
    random = np.random.default_rng(largest)
    assert _feed(VadStream.live(model), samples, random, largest) == expected


def test_offline_schedule_holds_after_the_first_minute(model: FsmnVad) -> None:
    segments = segment(model, recording("meeting_4spk.flac"))
    # The published implementation finds 58; pauses of this recording ask for about 20 segments.
    assert 15 <= len(segments) <= 25
    assert all(later.start_ms >= earlier.end_ms for earlier, later in pairwise(segments))


def test_int16_equals_float(model: FsmnVad) -> None:
    samples = recording("dialogue_2spk.flac")
    assert segment(model, (samples * 32768).astype(np.int16)) == segment(model, samples)


@pytest.mark.parametrize("max_segment_ms", [2000, 5000, 15_000])
def test_no_segment_is_longer_than_the_limit(model: FsmnVad, max_segment_ms: int) -> None:
    samples = recording("meeting_4spk.flac")
    options = VadOptions(max_segment_ms=max_segment_ms)
    segments = segment(model, samples, options)
    assert max(s.end_ms - s.start_ms for s in segments) <= max_segment_ms
    covered = sum(s.end_ms - s.start_ms for s in segments)
    unlimited = sum(s.end_ms - s.start_ms for s in segment(model, samples))
    assert covered > 0.85 * unlimited


@pytest.mark.parametrize("samples", [0, 1, 399, 400, 720, 16000])
def test_silence_has_no_segments(model: FsmnVad, samples: int) -> None:
    assert segment(model, np.zeros(samples, dtype=np.float32)) == []


def test_live_state_during_speech(model: FsmnVad) -> None:
    stream = VadStream.live(model)
    (start,) = stream.push(recording("mandarin_6s.wav")[:32000])
    assert start == VadEvent(Boundary.START, 770)
    assert stream.detector.start_ms == 770


def test_samples_of_a_segment() -> None:
    assert SpeechSegment(770, 2400).samples() == slice(12320, 38400)
