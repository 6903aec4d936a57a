"""The cache of encodings: what is kept and dropped, what counts as equal, who computes when many ask."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from encoder_service.batcher import Encoded
from encoder_service.encoding_cache import EncodingCache
from encoder_service.messages import CtcOutput, EncodedAudio, EncodeItem, StageTimes
from tandem.rpc.tensors import WireTensor

TIMES = StageTimes(0.1, 0.2, 0.3, 0.4)
BATCH = np.arange(64 * 1024, dtype=np.float32).reshape(64, 1024)
"""Embeddings of a whole batch: 4 KiB a row."""


def item(number: int = 0) -> EncodeItem:
    return EncodeItem(np.full(800, number, dtype=np.int16))


class Encoder:
    """Counts what it is asked; `rows` of each answer are views of one batch."""

    def __init__(self, rows: int = 1) -> None:
        self.asked = 0
        self.rows = rows
        self.started = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.failures: list[Exception] = []

    async def submit(self, item: EncodeItem) -> Encoded:
        self.asked += 1
        self.started.set()
        await self.go_on.wait()
        if self.failures:
            raise self.failures.pop()
        embeds = WireTensor.of(BATCH[: self.rows])
        return Encoded(EncodedAudio(1, self.rows, embeds, None, None, None, TIMES, batch_size=7), 0.5)


def test_a_kept_answer_is_equal_takes_no_time_and_does_not_hold_its_batch() -> None:
    async def run() -> None:
        encoder = Encoder(rows=2)
        cache = EncodingCache(encoder.submit, "weights", 2**20)
        first, again = await cache.encode(item()), await cache.encode(item())
        assert encoder.asked == 1
        await cache.encode(replace(item(), urgent=True))
        assert encoder.asked == 1
        assert (first.audio.times, first.audio.batch_size, first.queue_seconds) == (TIMES, 7, 0.5)
        assert (again.audio.times.compute, again.audio.batch_size, again.queue_seconds) == (0.0, 0, 0.0)
        assert first.audio.embeds is not None and again.audio.embeds is not None
        assert np.array_equal(first.audio.embeds.array, again.audio.embeds.array)
        assert not np.shares_memory(again.audio.embeds.array, BATCH)

    asyncio.run(run())


@pytest.mark.parametrize(
    "change",
    [
        lambda it: replace(it, ctc=CtcOutput.COMPACT),
        lambda it: replace(it, embeds=False),
        lambda it: replace(it, encoder_out=True),
        lambda it: replace(it, speakers=True),
        lambda it: replace(it, keep_ctc=True),
        lambda it: replace(it, samples=it.samples[:-1]),
        lambda it: replace(it, samples=it.samples.view(np.float32)),
    ],
)
def test_what_changes_the_answer_is_encoded_anew(change: Callable[[EncodeItem], EncodeItem]) -> None:
    async def run() -> None:
        encoder = Encoder()
        cache = EncodingCache(encoder.submit, "weights", 2**20)
        for asked in (item(), change(item()), change(item()), item()):
            await cache.encode(asked)
        assert encoder.asked == 2

    asyncio.run(run())


def test_audio_too_long_to_be_digested_in_the_event_loop_is_recognised_too() -> None:
    async def run() -> None:
        encoder = Encoder()
        cache = EncodingCache(encoder.submit, "weights", 2**20)
        long = np.arange(140 * 16_000).astype(np.int16)
        for samples in (long, long.copy(), np.roll(long, 1)):
            await cache.encode(EncodeItem(samples))
        assert encoder.asked == 2

    asyncio.run(run())


def test_memory_stays_within_its_bound_and_what_was_asked_for_lately_stays() -> None:
    async def run() -> None:
        encoder = Encoder()
        cache = EncodingCache(encoder.submit, "weights", 60 * 1024)
        for number in range(40):
            await cache.encode(item(number))
            await cache.encode(item(0))
            assert cache.bytes <= 60 * 1024
        assert encoder.asked == 40
        assert 8 <= len(cache) <= 10  # of 6 KiB each, of which 2 are for its objects
        await cache.encode(item(1))
        assert encoder.asked == 41

    asyncio.run(run())


def test_an_answer_that_would_push_out_most_others_is_given_but_not_kept() -> None:
    async def run() -> None:
        encoder = Encoder(rows=64)
        cache = EncodingCache(encoder.submit, "weights", 2**20)
        for _ in range(2):
            assert (await cache.encode(item())).audio.num_embeds == 64
        assert (encoder.asked, len(cache), cache.bytes) == (2, 0, 0)

    asyncio.run(run())


def test_without_memory_nothing_is_kept_or_shared() -> None:
    async def run() -> None:
        encoder = Encoder()
        cache = EncodingCache(encoder.submit, "weights", 0)
        await asyncio.gather(*(cache.encode(item()) for _ in range(3)))
        assert encoder.asked == 3

    asyncio.run(run())


@pytest.mark.parametrize("leaves", [True, False])
def test_when_the_first_of_several_fails_or_leaves_another_computes_for_the_rest(leaves: bool) -> None:
    async def run() -> None:
        encoder = Encoder()
        encoder.go_on.clear()
        cache = EncodingCache(encoder.submit, "weights", 2**20)
        first = asyncio.create_task(cache.encode(item()))
        await encoder.started.wait()
        rest = [asyncio.create_task(cache.encode(item())) for _ in range(3)]
        await asyncio.sleep(0)
        if leaves:
            first.cancel()
        else:
            encoder.failures = [RuntimeError("out of memory")]
        await asyncio.sleep(0)
        encoder.go_on.set()
        outcomes = await asyncio.gather(first, *rest, return_exceptions=True)
        assert isinstance(outcomes[0], asyncio.CancelledError if leaves else RuntimeError)
        assert all(isinstance(outcome, Encoded) for outcome in outcomes[1:])
        assert encoder.asked == 2

    asyncio.run(run())


def test_one_of_several_may_leave_without_ending_the_computation() -> None:
    async def run() -> None:
        encoder = Encoder()
        encoder.go_on.clear()
        cache = EncodingCache(encoder.submit, "weights", 2**20)
        tasks = [asyncio.create_task(cache.encode(item())) for _ in range(3)]
        await encoder.started.wait()
        tasks[1].cancel()
        await asyncio.sleep(0)
        encoder.go_on.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(outcome, Encoded) for outcome in outcomes] == [True, False, True]
        assert encoder.asked == 1

    asyncio.run(run())


def test_an_error_is_not_kept() -> None:
    async def run() -> None:
        encoder = Encoder()
        cache = EncodingCache(encoder.submit, "weights", 2**20)
        encoder.failures = [RuntimeError("out of memory")]
        with pytest.raises(RuntimeError, match="out of memory"):
            await cache.encode(item())
        assert (await cache.encode(item())).audio.num_embeds == 1
        assert encoder.asked == 2

    asyncio.run(run())
