"""The diarization scorer on cases that can be worked out by hand."""

from __future__ import annotations

import pytest

from benchmarks.der import SpokenTurn, diarization_error

REFERENCE = [SpokenTurn("ann", 1.0, 5.0), SpokenTurn("bob", 6.0, 10.0)]


def test_a_perfect_answer_by_other_names() -> None:
    error = diarization_error(REFERENCE, [SpokenTurn("1", 1.0, 5.0), SpokenTurn("0", 6.0, 10.0)])
    assert error.rate == 0 and error.scored == pytest.approx(7.0)
    assert (error.reference_speakers, error.found_speakers) == (2, 2)


def test_each_kind_of_error_without_a_collar() -> None:
    found = [SpokenTurn("x", 0.0, 4.0), SpokenTurn("y", 6.0, 8.0), SpokenTurn("x", 8.0, 10.0)]
    error = diarization_error(REFERENCE, found, collar=0.0)
    assert (error.missed, error.false_alarm, error.confused) == pytest.approx((1.0, 1.0, 2.0))
    assert error.rate == pytest.approx(4.0 / 8.0)


def test_the_collar_forgives_only_what_is_near_a_true_boundary() -> None:
    found = [SpokenTurn("x", 0.8, 5.4), SpokenTurn("y", 6.0, 10.0)]
    assert diarization_error(REFERENCE, found).false_alarm == pytest.approx(0.15)


def test_one_speaker_for_all_confuses_the_shorter() -> None:
    reference = [SpokenTurn("ann", 0.0, 6.0), SpokenTurn("bob", 6.0, 10.0)]
    error = diarization_error(reference, [SpokenTurn("x", 0.0, 10.0)], collar=0.0)
    assert error.rate == pytest.approx(0.4) and error.confused == pytest.approx(4.0)


def test_overlapping_speech_counts_twice() -> None:
    reference = [SpokenTurn("ann", 0.0, 4.0), SpokenTurn("bob", 2.0, 4.0)]
    error = diarization_error(reference, [SpokenTurn("x", 0.0, 4.0)], collar=0.0)
    assert error.scored == pytest.approx(6.0) and error.missed == pytest.approx(2.0)
    assert diarization_error(reference, [], collar=0.0).rate == 1.0
