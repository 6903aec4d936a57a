"""Keeps batches and works them off: a few recordings at a time, taking turns between batches."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import shutil
import tempfile
import time
import uuid
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import tenacity

from gateway.batch.batch import Batch, BatchRecording, Stage
from gateway.batch.space import SpoolSpace
from gateway.config import GatewayConfig
from gateway.service import GatewayService
from tandem.convert import transcript_to_response
from tandem.errors import InternalError, InvalidRequest, LimitExceeded, NotFound, Overloaded, TandemError
from tandem.patience import Patience, give_up_after
from tandem.results import Segment, Transcript

log = logging.getLogger("tandem.gateway.batch")

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PATIENCE = Patience(attempts=24, first_delay=0.5, max_delay=15.0)
"""A tier that restarts takes a while; minutes of waiting are nothing to a batch."""


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """`parallel` recordings run at a time, so that live callers keep their share.

    An open batch is closed after `idle_seconds` without upload, a finished one removed after `keep_seconds`.
    """

    max_batches: int = 256
    max_recordings: int = 10_000
    spool_bytes: int = 16 << 30
    parallel: int = 4
    idle_seconds: float = 3600.0
    keep_seconds: float = 24 * 3600.0


def batch_limits(config: GatewayConfig) -> BatchLimits:
    """The limits that can be set from outside; the others are as they are."""
    return BatchLimits(
        spool_bytes=config.batch_spool_bytes,
        parallel=config.batch_parallel,
        keep_seconds=config.batch_keep_seconds,
    )


class BatchManager:
    """All batches of this gateway, as an async context manager; leaving it cancels and removes them.

    A batch exists only for the `owner` that made it; several owners may each have one of the same id.
    """

    def __init__(self, service: GatewayService, limits: BatchLimits | None = None) -> None:
        self.limits = limits or BatchLimits()
        self.space = SpoolSpace(self.limits.spool_bytes, self._is_busy)
        self._service = service
        self._batches: dict[tuple[str | None, str], Batch] = {}
        self._turns: deque[Batch] = deque()
        self._work = asyncio.Semaphore(0)
        self._unfinished = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._folder = Path()

    async def __aenter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="tandem-batch-"))
        self._tasks = [asyncio.create_task(self._worker()) for _ in range(self.limits.parallel)]
        self._tasks.append(asyncio.create_task(self._expire()))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    def open(self, batch_id: str, owner: str | None = None) -> Batch:
        """The owner's open batch of that id, made where there is none; "" makes one with an id of its own."""
        if batch_id and not _ID.fullmatch(batch_id):
            raise InvalidRequest.of("start.batch_id", 'takes 1 to 64 letters, digits, "-" and "_"')
        batch = self._batches.get((owner, batch_id))
        if batch is not None:
            batch.check_open()
            return batch
        if len(self._batches) >= self.limits.max_batches:
            raise Overloaded(f"there are {self.limits.max_batches} batches already", retry_after=60.0)
        batch_id = batch_id or uuid.uuid4().hex
        folder = self._folder / uuid.uuid4().hex
        folder.mkdir()
        return self._batches.setdefault((owner, batch_id), Batch(batch_id, owner, folder))

    def get(self, batch_id: str, owner: str | None = None) -> Batch:
        """The owner's batch of that id. Raises NotFound."""
        batch = self._batches.get((owner, batch_id))
        if batch is None:
            raise NotFound(f"there is no batch {batch_id!r}; it may have expired")
        return batch

    def check_room(self, batch: Batch) -> None:
        """LimitExceeded when the batch takes no more recordings."""
        if len(batch.recordings) >= self.limits.max_recordings:
            raise LimitExceeded(f"a batch has at most {self.limits.max_recordings} recordings")

    def add(self, batch: Batch, recording: BatchRecording) -> None:
        """Take a recording that has arrived whole; its bytes are counted already."""
        batch.check_new(recording.key)
        batch.recordings[recording.key] = recording
        batch.waiting.append(recording)
        self._unfinished += 1
        if len(batch.waiting) == 1:
            self._turns.append(batch)
        self._work.release()
        batch.changed()

    def close(self, batch: Batch) -> None:
        """No more recordings will come."""
        batch.is_open = False
        self._settle(batch)

    def cancel(self, batch: Batch) -> None:
        """Stop what waits or runs; a finished batch stays as it is."""
        if batch.is_terminal:
            return
        batch.is_open, batch.is_cancelled = False, True
        for task in batch.tasks:
            task.cancel()
        while batch.waiting:
            self._finish(batch, batch.waiting.popleft(), Stage.CANCELLED)
        self._settle(batch)

    async def delete(self, batch: Batch) -> None:
        """Cancel, wait for what runs to stop, and remove everything."""
        self.cancel(batch)
        self._batches.pop((batch.owner, batch.batch_id), None)
        await asyncio.gather(*batch.tasks, return_exceptions=True)
        batch.is_deleted = True
        self.space.give_back(batch.result_bytes)
        batch.result_bytes = 0
        await asyncio.to_thread(shutil.rmtree, batch.folder, ignore_errors=True)
        batch.changed()

    def _is_busy(self) -> bool:
        return self._unfinished > 0

    async def _worker(self) -> None:
        while True:
            await self._work.acquire()
            if (found := self._next()) is None:
                continue  # it was cancelled while it waited
            batch, recording = found
            recording.stage = Stage.RUNNING
            task = asyncio.create_task(self._run(batch, recording))
            batch.tasks.add(task)
            try:
                await asyncio.wait([task])
            finally:
                task.cancel()
                batch.tasks.discard(task)
                ended = task.done() and not task.cancelled()
                self._finish(batch, recording, task.result() if ended else Stage.CANCELLED)

    def _next(self) -> tuple[Batch, BatchRecording] | None:
        while self._turns:
            batch = self._turns.popleft()
            if batch.waiting:
                recording = batch.waiting.popleft()
                if batch.waiting:
                    self._turns.append(batch)
                return batch, recording
        return None

    async def _run(self, batch: Batch, recording: BatchRecording) -> Stage:
        """Recognise one recording; how that ended."""
        try:
            transcript = await self._recognize(batch, recording)
            data = transcript_to_response(transcript).SerializeToString()
            await asyncio.to_thread(recording.result.write_bytes, data)
            self.space.add(len(data))
            batch.result_bytes += len(data)
            recording.duration = transcript.duration
            return Stage.SUCCEEDED
        except TandemError as error:
            recording.error = error
        except Exception as error:
            request_id = uuid.uuid4().hex[:16]
            log.error("request %s failed", request_id, exc_info=error)
            recording.error = InternalError(f"internal error, see the log for request {request_id}")
        return Stage.FAILED

    async def _recognize(self, batch: Batch, recording: BatchRecording) -> Transcript:
        def heard(segment: Segment) -> None:
            recording.recognized = max(recording.recognized, segment.end)
            batch.changed()

        def known(seconds: float) -> None:
            recording.duration = seconds

        async def attempt() -> Transcript:
            recognizer = self._service.ready()
            return await recognizer.recognize(recording.audio, recording.options, heard, known)

        retrying = tenacity.AsyncRetrying(**give_up_after(_PATIENCE, float("inf")))
        return await retrying(attempt)

    def _finish(self, batch: Batch, recording: BatchRecording, stage: Stage) -> None:
        recording.stage = stage
        with contextlib.suppress(FileNotFoundError):
            recording.audio.unlink()
        self._unfinished -= 1
        if stage is not Stage.CANCELLED:
            batch.finished.append(recording)
        self.space.give_back(recording.size)
        self._settle(batch)

    def _settle(self, batch: Batch) -> None:
        if batch.is_terminal and batch.expires is None:
            batch.expires = time.time() + self.limits.keep_seconds
        batch.changed()

    async def _expire(self) -> None:
        """Close batches that nobody fills any more, remove those kept long enough."""
        limits = self.limits
        while True:
            await asyncio.sleep(min(30.0, limits.idle_seconds / 4, limits.keep_seconds / 4))
            for batch in list(self._batches.values()):
                idle = time.monotonic() - batch.touched
                if batch.is_open and not batch.uploads and idle > limits.idle_seconds:
                    self.close(batch)
                if batch.expires is not None and time.time() > batch.expires:
                    await self.delete(batch)
