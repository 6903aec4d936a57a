"""Batching across requests: results, bounds, cancellation, isolation of failures, shutdown."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from encoder_service.audio_queue import BatchLimits
from encoder_service.batcher import Batcher, BatcherConfig
from encoder_service.checkpoint import load_checkpoint
from encoder_service.engine import EncoderEngine, EngineConfig
from encoder_service.messages import CtcOutput, EncodedAudio, EncodeItem, Pending
from tandem.errors import InvalidAudio, Overloaded, Unavailable
from tests.golden.nano import DIRECTORY, relative_error


@dataclass(frozen=True)
class Held:
    """A launched batch whose results land when the test says so."""

    pending: Pending
    landed: threading.Event

    def collect(self) -> list[EncodedAudio]:
        assert self.landed.wait(30)
        return self.pending.collect()


class Gate:
    """A real engine behind a gate: batches are recorded, and wait until the test lets them through."""

    def __init__(self) -> None:
        self.engine = EncoderEngine(load_checkpoint(DIRECTORY), EngineConfig())
        self.batches: list[list[int]] = []
        self.threads: set[int] = set()
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()
        self.open.set()
        self.landed = threading.Event()
        self.landed.set()
        self.poison: Callable[[EncodeItem], bool] = lambda item: False
        self.at_once = 1
        self.working = True
        self.warm = False

    def is_working(self) -> bool:
        return self.working and self.engine.is_working()

    def warm_up(self) -> None:
        self.threads.add(threading.get_ident())
        self.engine.warm_up()
        self.warm = True

    def seconds(self, item: EncodeItem) -> float:
        return self.engine.seconds(item)

    def validate(self, item: EncodeItem) -> None:
        self.engine.validate(item)

    @property
    def batches_at_once(self) -> int:
        return self.at_once

    def launch(self, items: Sequence[EncodeItem]) -> Held:
        self.threads.add(threading.get_ident())
        self.batches.append([len(item.samples) for item in items])
        self.entered.release()
        assert self.open.wait(30)
        if any(self.poison(item) for item in items):
            raise RuntimeError("poisoned")
        return Held(self.engine.launch(items), self.landed)


@pytest.fixture(scope="module")
def shared_gate() -> Gate:
    return Gate()


@pytest.fixture
def gate(shared_gate: Gate) -> Gate:
    shared_gate.batches.clear()
    shared_gate.threads.clear()
    shared_gate.warm = False
    shared_gate.poison = lambda item: False
    shared_gate.at_once = 1
    shared_gate.working = True
    shared_gate.open.set()
    shared_gate.landed.set()
    shared_gate.entered = threading.Semaphore(0)
    return shared_gate


def item(seconds: float, seed: int = 0, ctc: CtcOutput = CtcOutput.NONE) -> EncodeItem:
    samples = np.random.default_rng(seed).normal(0, 0.1, int(seconds * 16000)).astype(np.float32)
    return EncodeItem(samples, ctc)


async def occupy(gate: Gate, batcher: Batcher) -> asyncio.Task[object]:
    """Start one request and return once it holds the worker, its gate shut."""
    gate.open.clear()
    gate.entered = threading.Semaphore(0)
    task: asyncio.Task[object] = asyncio.create_task(batcher.submit(item(0.1)))
    assert await asyncio.to_thread(gate.entered.acquire, timeout=30)
    return task


async def queued(batcher: Batcher, count: int) -> None:
    while batcher.load().waiting_requests < count:
        await asyncio.sleep(0.001)


async def test_concurrent_requests_share_batches_and_get_their_own_results(gate: Gate) -> None:
    items = [item(0.2 + 0.3 * (index % 7), index, CtcOutput.COMPACT) for index in range(24)]
    async with Batcher(gate, BatcherConfig()) as batcher:
        results = await asyncio.gather(*(batcher.submit(one) for one in items))
    assert 1 < len(gate.batches) < len(items)
    assert len(gate.threads) == 1
    for one, result in zip(items, results, strict=True):
        alone = gate.engine.encode([one])[0]
        assert result.audio.embeds is not None and alone.embeds is not None
        assert relative_error(result.audio.embeds.float32(), alone.embeds.float32()) < 1e-4
        assert result.queue_seconds >= 0


async def test_the_encoder_warms_up_in_the_thread_that_launches_its_batches(gate: Gate) -> None:
    async with Batcher(gate, BatcherConfig()) as batcher:
        await batcher.warm_up()
        assert gate.warm
        await asyncio.gather(*(batcher.submit(item(0.2, index)) for index in range(3)))
    assert len(gate.threads) == 1


async def test_a_full_line_refuses_with_a_time_to_come_back(gate: Gate) -> None:
    async with Batcher(gate, BatcherConfig(max_queued_seconds=5.0)) as batcher:
        await batcher.submit(item(1.0))
        running = await occupy(gate, batcher)
        accepted = [asyncio.create_task(batcher.submit(item(2.0))) for _ in range(2)]
        await queued(batcher, 2)
        with pytest.raises(Overloaded) as caught:
            await batcher.submit(item(2.0))
        with pytest.raises(Overloaded):
            batcher.admit(2.0)
        batcher.admit(1.0)
        load = batcher.load()
        assert (load.queued_seconds, load.waiting_requests, load.max_queued_seconds) == (4.0, 2, 5.0)
        assert load.running_seconds == pytest.approx(0.1)
        assert load.seconds_per_second > 0
        assert caught.value.retry_after == pytest.approx(max(0.1, 1.0 / load.seconds_per_second))
        gate.open.set()
        await asyncio.gather(running, *accepted)
        assert batcher.load().queued_seconds == 0.0


async def test_an_empty_line_takes_even_what_exceeds_it(gate: Gate) -> None:
    async with Batcher(gate, BatcherConfig(max_queued_seconds=1.0)) as batcher:
        assert (await batcher.submit(item(2.0))).audio.num_frames == 33


async def test_cancelling_gives_the_place_back_and_spares_the_work(gate: Gate) -> None:
    async with Batcher(gate, BatcherConfig()) as batcher:
        running = await occupy(gate, batcher)
        waiting = asyncio.create_task(batcher.submit(item(3.0)))
        await queued(batcher, 1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert batcher.load().queued_seconds == 0.0
        gate.open.set()
        await running
    assert gate.batches == [[1600]]


async def test_cancelling_a_running_request_leaves_the_others_alone(gate: Gate) -> None:
    async with Batcher(gate, BatcherConfig()) as batcher:
        running = await occupy(gate, batcher)
        follower = asyncio.create_task(batcher.submit(item(0.2)))
        running.cancel()
        gate.open.set()
        assert (await follower).audio.num_frames == 3


async def test_a_failing_item_fails_alone(gate: Gate) -> None:
    gate.poison = lambda one: len(one.samples) == 8000
    async with Batcher(gate, BatcherConfig()) as batcher:
        running = await occupy(gate, batcher)
        tasks = [asyncio.create_task(batcher.submit(item(s))) for s in (0.4, 0.5, 0.6)]
        await queued(batcher, 3)
        gate.open.set()
        first, second, third = await asyncio.gather(*tasks, return_exceptions=True)
        await running
        assert gate.batches[1:] == [[6400, 8000, 9600], [6400], [8000], [9600]]
        assert isinstance(second, RuntimeError) and str(second) == "poisoned"
        assert not isinstance(first, BaseException) and not isinstance(third, BaseException)
        assert (await batcher.submit(item(0.1))).audio.num_frames == 2


async def test_a_lost_device_fails_everyone_at_once_and_says_so(gate: Gate) -> None:
    gate.poison = lambda one: True
    gate.working = False
    async with Batcher(gate, BatcherConfig()) as batcher:
        running = await occupy(gate, batcher)
        tasks = [asyncio.create_task(batcher.submit(item(s))) for s in (0.4, 0.5)]
        await queued(batcher, 2)
        gate.open.set()
        errors = await asyncio.wait_for(asyncio.gather(running, *tasks, return_exceptions=True), 30)
        assert all(isinstance(error, Unavailable) for error in errors)
        assert batcher.failed.is_set()
        with pytest.raises(Unavailable):
            await batcher.submit(item(0.1))
    assert gate.batches == [[1600]]


async def test_what_a_lost_device_left_is_never_freed(gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    left = list[weakref.ref[RuntimeError]]()

    class Lost(RuntimeError):
        """Like torch's, its traceback holds tensors that abort the process when they are freed."""

        def __init__(self) -> None:
            left.append(weakref.ref(self))

    def lose(one: EncodeItem) -> bool:
        raise Lost

    caplog.set_level(logging.CRITICAL + 1, "tandem.encoder")  # pytest's records of the log hold errors too
    gate.poison, gate.working, gate.at_once = lose, False, 2
    async with Batcher(gate, BatcherConfig(BatchLimits(max_items=1))) as batcher:
        tasks = [await occupy(gate, batcher), asyncio.create_task(batcher.submit(item(0.2)))]
        while batcher.load().waiting_requests:
            await asyncio.sleep(0.001)
        gate.open.set()
        errors = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 30)
        assert all(isinstance(error, Unavailable) for error in errors)
        gc.collect()
        assert [error() is not None for error in left] == [True, True]


async def test_bad_audio_never_reaches_the_line(gate: Gate) -> None:
    async with Batcher(gate, BatcherConfig()) as batcher:
        with pytest.raises(InvalidAudio):
            await batcher.submit(EncodeItem(np.zeros(1, dtype=np.float32)))
    assert gate.batches == []


async def test_a_long_clip_does_not_hold_short_ones_in_its_batch(gate: Gate) -> None:
    limits = BatchLimits(max_spread=0.3)
    async with Batcher(gate, BatcherConfig(limits=limits)) as batcher:
        running = await occupy(gate, batcher)
        tasks = [asyncio.create_task(batcher.submit(item(s))) for s in (4.0, 0.5, 0.7, 3.0)]
        await queued(batcher, 4)
        gate.open.set()
        await asyncio.gather(running, *tasks)
    assert gate.batches[1:] == [[64000, 48000], [8000, 11200]]


async def test_a_busy_device_is_given_the_next_batch_only_when_it_is_worth_it(gate: Gate) -> None:
    """Two at once: while results of the first are awaited, the second leaves half full; no third does."""
    gate.at_once = 2
    gate.landed.clear()
    limits = BatchLimits(max_items=8)
    async with Batcher(gate, BatcherConfig(limits=limits, max_wait=0.0)) as batcher:
        tasks = [asyncio.create_task(batcher.submit(item(0.1)))]
        assert await asyncio.to_thread(gate.entered.acquire, timeout=30)
        tasks += [asyncio.create_task(batcher.submit(item(0.2))) for _ in range(3)]
        await queued(batcher, 3)
        await asyncio.sleep(0.05)
        assert batcher.load().waiting_requests == 3
        tasks.append(asyncio.create_task(batcher.submit(item(0.3))))
        assert await asyncio.to_thread(gate.entered.acquire, timeout=30)
        tasks += [asyncio.create_task(batcher.submit(item(0.4))) for _ in range(8)]
        await queued(batcher, 8)
        await asyncio.sleep(0.05)
        assert batcher.load().waiting_requests == 8
        assert batcher.load().running_seconds == pytest.approx(0.1 + 3 * 0.2 + 0.3)
        assert not any(task.done() for task in tasks)
        gate.landed.set()
        results = await asyncio.gather(*tasks)
    assert [len(batch) for batch in gate.batches] == [1, 4, 8]
    assert [result.audio.batch_size for result in results] == [1] + [4] * 4 + [8] * 8


async def test_closing_finishes_what_waits_and_refuses_what_comes(gate: Gate) -> None:
    async with Batcher(gate, BatcherConfig()) as batcher:
        running = await occupy(gate, batcher)
        waiting = asyncio.create_task(batcher.submit(item(0.3)))
        await queued(batcher, 1)
        gate.open.set()
    assert running.done() and waiting.done()
    assert (await waiting).audio.num_frames == 5
    with pytest.raises(Unavailable):
        await batcher.submit(item(0.1))
