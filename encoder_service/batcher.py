"""Dynamic batching across requests: an asyncio front with a bounded line, one thread that owns the device."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol

from encoder_service.audio_queue import AudioQueue, BatchLimits, Waiting
from encoder_service.messages import EncodedAudio, EncodeItem
from encoder_service.rate import RateMeter
from encoder_service.telemetry import observe_batch
from tandem.errors import Overloaded, Unavailable

RETRY_SECONDS = (0.1, 30.0)


class Encoder(Protocol):
    """What the batcher needs of EncoderEngine."""

    def seconds(self, item: EncodeItem) -> float: ...

    def validate(self, item: EncodeItem) -> None: ...

    def encode(self, items: Sequence[EncodeItem]) -> list[EncodedAudio]: ...


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
    """Use as `async with Batcher(engine, config) as batcher`; leaving it finishes what is already waiting."""

    def __init__(self, encoder: Encoder, config: BatcherConfig) -> None:
        self._encoder = encoder
        self._config = config
        self._queue: AudioQueue[_Job] = AudioQueue(config.limits)
        self._arrived = asyncio.Event()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="encoder")
        self._running_seconds = 0.0
        self._rate = RateMeter()
        self._closing = False
        self._loop: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Batcher:
        self._loop = asyncio.create_task(self._serve(), name="encoder-batcher")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        self._arrived.set()
        if self._loop is not None:
            await self._loop
        self._worker.shutdown()

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
        entry = Waiting(job, seconds, time.monotonic())
        self._queue.push(entry)
        self._arrived.set()
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
            while len(self._queue) or not self._closing:
                if not len(self._queue):
                    self._arrived.clear()
                    await self._arrived.wait()
                    await asyncio.sleep(0 if self._closing else self._config.max_wait)
                await self._run(self._queue.take())
        finally:
            self._closing = True
            for entry in self._queue:
                _settle(entry.payload.done, Unavailable("the encoder stopped"))

    async def _run(self, batch: list[Waiting[_Job]]) -> None:
        """Encode a batch; when it fails, each item alone, so that one bad item costs its mates only time."""
        self._running_seconds = sum(entry.seconds for entry in batch)
        try:
            started = time.monotonic()
            if batch and not await self._try(batch, started, final=len(batch) == 1):
                for entry in batch:
                    if not entry.payload.done.done():
                        await self._try([entry], started, final=True)
        finally:
            self._running_seconds = 0.0
            for entry in batch:  # only when this task was cancelled is anyone still waiting here
                _settle(entry.payload.done, Unavailable("the encoder stopped"))

    async def _try(self, batch: list[Waiting[_Job]], started: float, final: bool) -> bool:
        """Encode in the worker thread and hand results out; False when it failed and may be tried again."""
        begun = time.monotonic()
        loop = asyncio.get_running_loop()
        try:
            results = await loop.run_in_executor(
                self._worker, self._encoder.encode, [entry.payload.item for entry in batch]
            )
        except Exception as error:
            if final:
                _settle(batch[0].payload.done, error)
            return False
        audio_seconds = sum(entry.seconds for entry in batch)
        self._rate.add(audio_seconds, time.monotonic() - begun)
        observe_batch(results, audio_seconds, [started - entry.since for entry in batch])
        for entry, audio in zip(batch, results, strict=True):
            _settle(entry.payload.done, Encoded(audio, started - entry.since))
        return True


def _settle(future: asyncio.Future[Encoded], outcome: Encoded | Exception) -> None:
    """Resolve a future unless its caller has gone."""
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
