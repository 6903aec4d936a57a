"""Clustering of synthetic voices: any number of speakers, any length, the same every time."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest

from gateway.speakers.clustering import ClusterConfig, cluster
from gateway.speakers.diarize import diarize, steady_path
from gateway.speakers.groups import Groups, likeness, unit
from gateway.speakers.types import LabelArray
from tests.unit.gateway.speakers.voices import conversation, sentence, speakers, windows


def wrong(found: LabelArray, true: LabelArray) -> float:
    """Share of windows whose cluster mostly holds another speaker."""
    right = sum(np.bincount(true[found == label]).max() for label in np.unique(found))
    return float(1 - right / len(true))


@pytest.mark.parametrize("count", range(1, 11))
@pytest.mark.parametrize("given", [False, True])
def test_one_to_ten_speakers(count: int, given: bool) -> None:
    parts, who = conversation(speakers(count, seed=count), sentences=12 * count)
    found = diarize(parts, count if given else None)
    true = np.repeat(who, [len(part.embeddings) for part in parts])
    assert found.num_speakers == count
    assert wrong(np.concatenate(found.labels), true) < 0.01


def test_hours_of_speech_in_bounded_time_and_memory() -> None:
    generator = np.random.default_rng(3)
    # Eight talkers and one who says little: 20,000 windows of 0.75 s are more than four hours.
    shares = [0.3, 0.2, 0.1, 0.1, 0.1, 0.08, 0.06, 0.055, 0.005]
    true = np.repeat(generator.choice(9, p=shares, size=2000), 10)
    embeddings = windows(speakers(9), true)
    tracemalloc.start()
    begun = time.process_time()
    found = cluster(embeddings, np.full(len(true), 0.75))
    spent = time.process_time() - begun
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(np.unique(found)) == 9 and wrong(found, true) < 0.01
    assert peak < 250e6
    assert spent < 30


def test_the_same_every_time_and_in_order_of_appearance() -> None:
    parts, _ = conversation(speakers(5), sentences=40)
    first, second = diarize(parts), diarize(parts)
    assert first.turns == second.turns
    order = list(dict.fromkeys(turn.speaker for turn in first.turns))
    assert order == [0, 1, 2, 3, 4]


def test_a_given_number_is_kept_even_against_the_evidence() -> None:
    parts, who = conversation(speakers(2), sentences=12)
    counts = [len(part.embeddings) for part in parts]
    for number in (1, 2, 3, 5):
        assert diarize(parts, number).num_speakers == number
    assert wrong(np.concatenate(diarize(parts, 3).labels), np.repeat(who, counts)) < 0.05
    merged = diarize(conversation(speakers(6), sentences=40)[0], 4)
    assert merged.num_speakers == 4


def test_fewer_windows_than_speakers_asked_for() -> None:
    part = sentence(windows(speakers(1), np.zeros(2, dtype=np.int64)), 0.0)
    assert diarize([part], 5).num_speakers == 2
    assert diarize([], 2).turns == ()
    assert cluster(np.zeros((0, 192), dtype=np.float32), np.zeros(0)).tolist() == []


def test_two_speakers_in_twenty_seconds() -> None:
    voices = speakers(2)
    labels = np.array([0] * 6 + [1] * 5 + [0] * 6 + [1] * 6)
    parts = [
        sentence(windows(voices, labels[low:high], seed=low), start)
        for low, high, start in ((0, 6, 0), (6, 11, 6), (11, 17, 11), (17, 23, 17))
    ]
    assert [turn.speaker for turn in diarize(parts).turns] == [0, 1, 0, 1]


def test_no_more_speakers_than_allowed() -> None:
    embeddings = windows(speakers(12), np.repeat(np.arange(12), 20))
    config = ClusterConfig(max_speakers=8)
    assert len(np.unique(cluster(embeddings, np.full(240, 0.75), None, config))) == 8


def test_a_moment_between_two_voices_is_no_third_one() -> None:
    voices = speakers(2)
    labels = np.repeat([0, 1] * 10, 8)
    embeddings = windows(voices, labels)
    mixed = np.arange(8, 160, 8)
    embeddings[mixed] = unit(embeddings[mixed]) + unit(embeddings[mixed - 1])
    assert len(np.unique(cluster(embeddings, np.full(160, 0.75)))) == 2


def test_likeness_does_not_depend_on_how_much_was_said() -> None:
    voices = speakers(2)
    few, many = (windows(voices, np.repeat([0, 1], n), seed=n) for n in (8, 400))
    for size, embeddings in ((8, few), (400, many)):
        groups = Groups.of(unit(embeddings), np.ones(2 * size), np.repeat([0, 1], size))
        other = Groups.of(unit(windows(voices, np.array([0] * 30), 9)), np.ones(30), np.zeros(30, dtype=int))
        same, different = likeness(other, groups)[0]
        assert same == pytest.approx(1.0, abs=0.1) and different < 0.4


def test_a_change_must_pay_for_itself() -> None:
    scores = np.array([[0.7, 0.2], [0.5, 0.55], [0.7, 0.2], [0.1, 0.6], [0.1, 0.7]], dtype=np.float32)
    assert steady_path(scores, 0.2).tolist() == [0, 0, 0, 1, 1]
    assert steady_path(scores, 0.0).tolist() == [0, 1, 0, 1, 1]
    assert steady_path(scores, 9.0).tolist() == [1, 1, 1, 1, 1]
