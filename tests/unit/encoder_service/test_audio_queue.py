"""How the waiting line is cut into batches."""

from __future__ import annotations

import random

import pytest

from encoder_service.audio_queue import AudioQueue, BatchLimits, Waiting


def line(limits: BatchLimits, *seconds: float) -> AudioQueue[int]:
    queue: AudioQueue[int] = AudioQueue(limits)
    for index, duration in enumerate(seconds):
        queue.push(Waiting(index, duration, since=float(index)))
    return queue


def taken(queue: AudioQueue[int]) -> list[int]:
    return [entry.payload for entry in queue.take()]


def test_similar_lengths_go_together_and_the_oldest_always_goes() -> None:
    queue = line(BatchLimits(), 60.0, 1.2, 50.0, 1.1, 0.9)
    assert taken(queue) == [0, 2]
    assert taken(queue) == [1, 3, 4]
    assert taken(queue) == []


def test_urgent_ones_go_first_whatever_their_age() -> None:
    queue = line(BatchLimits(max_items=2, max_spread=1.0), 1.0, 1.0, 1.0)
    queue.push(Waiting(9, 30.0, since=9.0, urgent=True))
    assert [taken(queue), taken(queue)] == [[9, 0], [1, 2]]


def test_short_clips_go_together_whatever_their_ratio() -> None:
    assert taken(line(BatchLimits(short_seconds=1.0), 0.05, 1.0, 0.3, 1.01)) == [0, 1, 2]


def test_seconds_bound_a_batch_and_later_ones_fill_it() -> None:
    queue = line(BatchLimits(max_seconds=30.0), 10.0, 9.0, 12.0, 11.0, 9.5)
    assert taken(queue) == [0, 1, 3]
    assert taken(queue) == [2, 4]


def test_without_a_spread_all_lengths_go_together() -> None:
    assert taken(line(BatchLimits(max_spread=1.0), 60.0, 0.1, 30.0)) == [0, 1, 2]


def test_half_a_batch_is_worth_one() -> None:
    limits = BatchLimits(max_items=8, max_seconds=10.0)
    assert not line(limits, 1.0, 1.0, 1.0).worth_a_batch
    assert line(limits, 2.0, 3.0).worth_a_batch and line(limits, 0.1, 0.1, 0.1, 0.1).worth_a_batch


def test_number_of_items_bounds_a_batch() -> None:
    queue = line(BatchLimits(max_items=2), 1.0, 1.0, 1.0)
    assert [taken(queue), taken(queue)] == [[0, 1], [2]]


def test_one_item_beyond_every_bound_still_goes_alone() -> None:
    assert taken(line(BatchLimits(max_seconds=30.0), 100.0, 100.0)) == [0]


@pytest.mark.parametrize("seed", range(5))
def test_every_item_leaves_once_within_the_limits(seed: int) -> None:
    generator = random.Random(seed)
    seconds = [generator.uniform(0.05, 60.0) for _ in range(200)]
    limits = BatchLimits(max_items=16, max_seconds=120.0)
    queue, seen = line(limits, *seconds), []
    while len(queue):
        oldest = next(iter(queue)).payload
        batch = queue.take()
        assert batch[0].payload == oldest
        durations = [entry.seconds for entry in batch]
        assert len(batch) <= 16
        assert len(batch) == 1 or sum(durations) <= 120.0
        assert max(durations) <= 1.0 or min(durations) >= max(durations) * 0.7
        seen += [entry.payload for entry in batch]
    assert sorted(seen) == list(range(200))
    assert queue.seconds == 0.0


def test_leaving_the_line_gives_its_seconds_back() -> None:
    queue = line(BatchLimits(), 2.0, 3.0)
    entry = next(iter(queue))
    assert queue.remove(entry) and queue.seconds == 3.0
    assert not queue.remove(entry) and queue.seconds == 3.0
    assert taken(queue) == [1]
