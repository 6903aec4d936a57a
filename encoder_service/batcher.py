"""Dynamic batching across requests: an asyncio front with a bounded line, one thread that drives the device.

While the device computes a batch, that thread prepares the next one and another hands the last one out.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol

from encoder_service.audio_queue import AudioQueue, BatchLimits, Waiting
from encoder_service.messages import EncodedAudio, EncodeItem, Pending
from encoder_service.rate import RateMeter
from encoder_service.telemetry import observe_batch
from tandem.errors import Overloaded, Unavailable

log = logging.getLogger("tandem.encoder.batcher")

RETRY_SECONDS = (0.1, 30.0)


class Encoder(Protocol):
    """What the batcher needs of EncoderEngine."""

    @property
    def batches_at_once(self) -> int: ...

    def seconds(self, item: EncodeItem) -> float: ...

    def validate(self, item: EncodeItem) -> None: ...

    def warm_up(self) -> None: ...

    def launch(self, items: Sequence[EncodeItem]) -> Pending: ...

    def is_working(self) -> bool: ...


@dataclass(frozen=True)
class BatcherConfig:
    """`max_wait` is how long a request that meets an idle encoder waits for company, in seconds."""

    limits: BatchLimits = field(default_factory=BatchLimits)
    max_queued_seconds: float = 1200.0
    max_wait: float = 0.003


@dataclass(frozen=True)
class LoadSnapshot:
    """Seconds of audio waiting and being computed, and the recent rate in seconds of audio per second."""

    queued_seconds: float
    running_seconds: float
    seconds_per_second: float
    max_queued_seconds: float
    waiting_requests: int


@dataclass(frozen=True)
class Encoded:
    """A result and the seconds that its request waited for a place in a batch."""

    audio: EncodedAudio
    queue_seconds: float


@dataclass(eq=False)
class _Job:
    item: EncodeItem
    done: asyncio.Future[Encoded]


class Batcher:
    """Use as `async with Batcher(engine, config) as batcher`; leaving it finishes what is already waiting.

    `failed` is set when the encoder's device can do nothing any more; everyone gets Unavailable from then on.
    """

    def __init__(self, encoder: Encoder, config: BatcherConfig) -> None:
        self._encoder = encoder
        self._config = config
        self._queue: AudioQueue[_Job] = AudioQueue(config.limits)
        self._changed = asyncio.Event()
        self._launcher = ThreadPoolExecutor(1, thread_name_prefix="encoder")
        self._collector = ThreadPoolExecutor(encoder.batches_at_once, thread_name_prefix="encoder-results")
        self._running: set[asyncio.Task[None]] = set()
        self._running_seconds = 0.0
        self._rate = RateMeter()
        self._busy_until = 0.0
        self._closing = False
        self.failed = asyncio.Event()
        self._failures: list[Exception] = []
        self._loop: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Batcher:
        self._loop = asyncio.create_task(self._serve(), name="encoder-batcher")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        self._changed.set()
        if self._loop is not None:
            await self._loop
        self._launcher.shutdown()
        self._collector.shutdown()

    async def warm_up(self) -> None:
        """Let the encoder warm up in the thread that launches its batches.

        CUDA's libraries keep a handle and its workspaces for each thread: those of another warm nothing here.
        """
        await asyncio.get_running_loop().run_in_executor(self._launcher, self._encoder.warm_up)

    async def submit(self, item: EncodeItem) -> Encoded:
        """Wait for a batch and return the item's result. Cancelling gives the place in the line back.

        Raises Overloaded with retry_after when the line is full, Unavailable when closing, the errors of
        Encoder.validate, and whatever made the encoding of this very item fail.
        """
        self._encoder.validate(item)
        if self._closing:
            raise Unavailable("the encoder is shutting down")
        seconds = self._encoder.seconds(item)
        self.admit(seconds)
        job = _Job(item, asyncio.get_running_loop().create_future())
        entry = Waiting(job, seconds, time.monotonic(), item.urgent)
        self._queue.push(entry)
        self._changed.set()
        try:
            return await job.done
        finally:
            self._queue.remove(entry)

    def load(self) -> LoadSnapshot:
        return LoadSnapshot(
            queued_seconds=self._queue.seconds,
            running_seconds=self._running_seconds,
            seconds_per_second=self._rate.value,
            max_queued_seconds=self._config.max_queued_seconds,
            waiting_requests=len(self._queue),
        )

    def admit(self, seconds: float) -> None:
        """Raise Overloaded when so many more seconds of audio do not fit; an empty line takes anything.

        `submit` asks this itself; a server may ask before it has read the audio.
        """
        excess = self._queue.seconds + seconds - self._config.max_queued_seconds
        if excess <= 0 or not len(self._queue):
            return
        rate = self._rate.value
        shortest, longest = RETRY_SECONDS
        wait = min(max(excess / rate, shortest), longest) if rate > 0 else 1.0
        raise Overloaded(
            f"{self._queue.seconds:.0f} s of audio are waiting; the limit is "
            f"{self._config.max_queued_seconds:.0f} s",
            retry_after=wait,
        )

    async def _serve(self) -> None:
        try:
            while (len(self._queue) or not self._closing) and not self.failed.is_set():
                if len(self._queue) and not self._running:
                    await self._company()
                if self._may_start():
                    self._start(self._queue.take())
                    continue
                self._changed.clear()
                await self._changed.wait()
            await asyncio.gather(*self._running)
        finally:
            self._closing = True
            for task in self._running:
                task.cancel()
            for entry in self._queue:
                _settle(entry.payload.done, Unavailable("the encoder stopped"))

    async def _company(self) -> None:
        """Give a request that met an idle encoder the time to be joined by others."""
        left = self._queue.oldest + self._config.max_wait - time.monotonic()
        if left > 0 and not self._closing:
            await asyncio.sleep(left)

    def _may_start(self) -> bool:
        """Whether the next batch should leave now.

        To a busy device only what would fill half a batch: the rest loses nothing by waiting for company.
        """
        if not len(self._queue) or len(self._running) >= self._encoder.batches_at_once:
            return False
        return not self._running or self._queue.worth_a_batch

    def _start(self, batch: list[Waiting[_Job]]) -> None:
        task = asyncio.create_task(self._run(batch), name="encoder-batch")
        self._running.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._changed.set()

    async def _run(self, batch: list[Waiting[_Job]]) -> None:
        """Encode a batch; when it fails, each item alone, so that one bad item costs its mates only time."""
        seconds = sum(entry.seconds for entry in batch)
        self._running_seconds += seconds
        try:
            started = time.monotonic()
            if not await self._try(batch, started, final=len(batch) == 1):
                for entry in batch:
                    if not entry.payload.done.done():
                        await self._try([entry], started, final=True)
        finally:
            self._running_seconds -= seconds
            for entry in batch:  # only when this task was cancelled is anyone still waiting here
                _settle(entry.payload.done, Unavailable("the encoder stopped"))

    async def _try(self, batch: list[Waiting[_Job]], started: float, final: bool) -> bool:
        """Encode and hand results out; False when it failed and may be tried again."""
        loop = asyncio.get_running_loop()
        items = [entry.payload.item for entry in batch]
        begun = time.monotonic()
        try:
            pending = await loop.run_in_executor(self._launcher, self._encoder.launch, items)
            results = await loop.run_in_executor(self._collector, pending.collect)
        except Exception as error:
            if not await loop.run_in_executor(self._launcher, self._encoder.is_working):
                self._fail(batch, error)
            elif final:
                _settle(batch[0].payload.done, error)
            return self.failed.is_set()
        audio_seconds, now = sum(entry.seconds for entry in batch), time.monotonic()
        self._rate.add(audio_seconds, now - max(begun, self._busy_until))
        self._busy_until = now
        observe_batch(results, audio_seconds, [started - entry.since for entry in batch])
        for entry, audio in zip(batch, results, strict=True):
            _settle(entry.payload.done, Encoded(audio, started - entry.since))
        return True

    def _fail(self, batch: list[Waiting[_Job]], error: Exception) -> None:
        """The device is lost. Each error is kept: freeing the tensors of its traceback aborts the process."""
        self._failures.append(error)
        self.failed.set()
        self._changed.set()
        log.critical("the device failed: %s", error)
        for entry in batch:
            _settle(entry.payload.done, Unavailable("the encoder's device failed"))


def _settle(future: asyncio.Future[Encoded], outcome: Encoded | Exception) -> None:
    """Resolve a future unless its caller has gone."""
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
