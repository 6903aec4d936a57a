"""Decodes recordings in worker processes, so that nothing a client sends can block or crash the server.

Speech is looked for there as well. Samples come back through a file that is mapped and unlinked at once:
memory stays bounded by the page cache whatever the length, and nothing is left behind when a process dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import numpy as np

from gateway.audio.errors import AudioError, AudioLimitError, AudioTooLarge, DecodingTooSlow
from gateway.audio.types import DecodedAudio, DecodeLimits, DecodeOptions, Stretch
from gateway.audio.worker import DecodedPart, DecodeJob, begin_job, end_job, load_vad, next_part, start_worker
from gateway.vad.detector import DetectorConfig
from tandem.errors import InvalidAudio, LimitExceeded, Overloaded, TandemError

# Smaller recordings travel to the worker in the job itself.
_INLINE_BYTES = 1 << 20
_RETRY_AFTER_SECONDS = 1.0


class WorkerCrashed(AudioError):
    """The decoder crashed, or hung, on this recording; the worker has been replaced."""


def as_tandem_error(error: AudioError) -> TandemError:
    """The error of tandem.errors that clients see; metadata "problem" holds the precise kind."""
    metadata = {"problem": type(error).__name__}
    cls = LimitExceeded if isinstance(error, AudioLimitError) else InvalidAudio
    return cls(str(error), metadata=metadata)


class _Worker:
    """One process with its own executor, so that a crash fails one recording and no other."""

    def __init__(self, max_memory_bytes: int, vad_model: Path | None) -> None:
        context = multiprocessing.get_context("spawn")
        self._executor = ProcessPoolExecutor(max_workers=1, mp_context=context)
        self._pid: Future[int] = self._executor.submit(start_worker, max_memory_bytes)
        if vad_model is not None:
            self._executor.submit(load_vad, vad_model)

    def begin(self, job: DecodeJob) -> asyncio.Future[DecodedPart]:
        """Starts a job; raises BrokenProcessPool when the process is dead already, as the others do."""
        return asyncio.wrap_future(self._executor.submit(begin_job, job))

    def next(self) -> asyncio.Future[DecodedPart]:
        """Goes on with a job."""
        return asyncio.wrap_future(self._executor.submit(next_part))

    def drop(self) -> None:
        """Ends a job early."""
        self._executor.submit(end_job)

    @property
    def pid(self) -> int | None:
        """The process id; None while the process starts or when it died starting."""
        if not self._pid.done() or self._pid.exception() is not None:
            return None
        return self._pid.result()

    async def started(self) -> None:
        await asyncio.wrap_future(self._pid)

    def kill(self) -> None:
        """Ends the process whatever it is doing."""
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self._executor.shutdown(wait=False, cancel_futures=True)


@dataclass(slots=True)
class _Listener:
    """Who gets the parts of a job; nobody any more once it is `gone`."""

    on_part: Callable[[DecodedPart], None]
    gone: bool = False


class AudioPool:
    """Worker processes that decode; use as an async context manager.

    workers: recordings decoded at a time. max_waiting: recordings that may wait beyond those, and
    max_held_bytes: what recordings given as bytes may hold of memory until they are decoded; more are
    refused with Overloaded before any work. grace_seconds: how much longer than
    limits.max_decode_seconds a worker may take before it is killed. spool_dir: where samples lie
    while they are used (2 bytes each, 4 where the recording is finer); the system's temporary directory
    by default. vad_model: directory of the network that finds speech, without which none may be asked for.
    """

    def __init__(
        self,
        workers: int = 2,
        limits: DecodeLimits | None = None,
        *,
        max_waiting: int = 64,
        max_held_bytes: int = 2 << 30,
        grace_seconds: float = 5.0,
        spool_dir: Path | None = None,
        max_worker_memory_bytes: int = 4 << 30,
        vad_model: Path | None = None,
    ) -> None:
        if workers < 1:
            raise ValueError(f"workers {workers} is less than 1")
        self._limits = limits or DecodeLimits()
        self._timeout = self._limits.max_decode_seconds + grace_seconds
        self._num_workers = workers
        self._max_jobs = workers + max_waiting
        self._max_held_bytes = max_held_bytes
        self._held_bytes = 0
        self._spool_dir = spool_dir
        self._max_worker_memory_bytes = max_worker_memory_bytes
        self._vad_model = vad_model
        self._workers: set[_Worker] = set()
        self._idle: asyncio.Queue[_Worker] = asyncio.Queue()
        self._jobs = 0
        self._running: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> AudioPool:
        for _ in range(self._num_workers):
            self._idle.put_nowait(self._new_worker())
        await asyncio.gather(*(worker.started() for worker in self._workers))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        running = list(self._running)
        for worker in self._workers:
            worker.kill()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        # Cancelled jobs have replaced their workers.
        for worker in self._workers:
            worker.kill()
        self._workers.clear()

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of the started workers."""
        return [worker.pid for worker in self._workers if worker.pid is not None]

    async def decode(
        self,
        audio: bytes | Path,
        options: DecodeOptions | None = None,
        vad: DetectorConfig | None = None,
        on_part: Callable[[DecodedAudio], None] | None = None,
    ) -> DecodedAudio:
        """Decodes a recording, given as its bytes or as a local file; with `vad`, finds its speech.

        `on_part` is called every minute or so of the recording, and at its end: with all samples until
        then, and with the speech that ended since the last call.

        Raises InvalidAudio, LimitExceeded and Overloaded. Cancelling is safe at any time.
        """
        held = len(audio) if isinstance(audio, bytes) else 0
        too_much = self._jobs and self._held_bytes + held > self._max_held_bytes
        if too_much or self._jobs >= self._max_jobs:
            raise Overloaded("too many recordings wait to be decoded", retry_after=_RETRY_AFTER_SECONDS)
        self._jobs += 1
        self._held_bytes += held
        try:
            return await self._decode(audio, options or DecodeOptions(), vad, on_part)
        except AudioError as error:
            raise as_tandem_error(error) from error
        finally:
            self._jobs -= 1
            self._held_bytes -= held

    async def _decode(
        self,
        audio: bytes | Path,
        options: DecodeOptions,
        vad: DetectorConfig | None,
        on_part: Callable[[DecodedAudio], None] | None,
    ) -> DecodedAudio:
        if isinstance(audio, bytes) and len(audio) > self._limits.max_bytes:
            raise AudioTooLarge(f"{len(audio)} bytes exceed the limit of {self._limits.max_bytes}")
        with self._spool_file() as target, contextlib.ExitStack() as stack:
            source: bytes | str = str(audio) if isinstance(audio, Path) else audio
            if isinstance(audio, bytes) and len(audio) > _INLINE_BYTES:
                spooled = stack.enter_context(self._spool_file())
                await asyncio.to_thread(spooled.write_bytes, audio)
                source = str(spooled)
            whole = _Whole(target, on_part)
            worker, listener = await self._idle.get(), _Listener(whole.add)
            job = DecodeJob(source, str(target), options, self._limits, vad)
            task = asyncio.create_task(self._run(worker, job, listener))
            self._running.add(task)
            task.add_done_callback(self._forget)
            try:
                # A caller that goes away leaves the worker busy until the end of the part.
                await asyncio.shield(task)
            finally:
                listener.gone = True
        return whole.decoded()

    async def _run(self, worker: _Worker, job: DecodeJob, listener: _Listener) -> None:
        """Runs a job and gives back an idle worker, whatever happens."""
        try:
            future = worker.begin(job)
        except BrokenProcessPool:
            # It died while idle, which is not this recording's fault.
            worker = self._replacement(worker)
            future = worker.begin(job)
        usable = False
        try:
            async with asyncio.timeout(self._timeout):
                part = await future
                while not (listener.gone or part.is_last):
                    listener.on_part(part)
                    part = await worker.next()
            if not listener.gone:
                listener.on_part(part)
            elif not part.is_last:
                worker.drop()
            usable = True
        except BrokenProcessPool as error:
            raise WorkerCrashed("the audio crashed its decoder") from error
        except TimeoutError as error:
            raise DecodingTooSlow(f"decoding took longer than {self._timeout:g} s") from error
        except (AudioError, OSError):
            usable = True
            raise
        finally:
            self._idle.put_nowait(worker if usable else self._replacement(worker))

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            # Nobody may be waiting any more: reading the exception marks it as seen.
            task.exception()

    def _new_worker(self) -> _Worker:
        worker = _Worker(self._max_worker_memory_bytes, self._vad_model)
        self._workers.add(worker)
        return worker

    def _replacement(self, worker: _Worker) -> _Worker:
        self._workers.discard(worker)
        worker.kill()
        return self._new_worker()

    @contextlib.contextmanager
    def _spool_file(self) -> Iterator[Path]:
        """An empty file that is unlinked on leaving; mappings of it stay valid."""
        handle, name = tempfile.mkstemp(prefix="tandem-audio-", dir=self._spool_dir)
        os.close(handle)
        try:
            yield Path(name)
        finally:
            os.unlink(name)


class _Whole:
    """Puts the parts of a recording together whose samples lie in `target`, and passes each on."""

    def __init__(self, target: Path, on_part: Callable[[DecodedAudio], None] | None) -> None:
        self._target, self._on_part = target, on_part
        self._newest: DecodedAudio | None = None
        self._speech: list[tuple[Stretch, ...]] = []

    def add(self, part: DecodedPart) -> None:
        shape = (part.num_frames, part.num_channels)
        # The mapping stays readable when the file is unlinked.
        samples = np.asarray(np.memmap(self._target, dtype=part.dtype, mode="r", shape=shape))
        self._newest = DecodedAudio(samples, part.info, part.speech, part.vad_seconds)
        before = self._speech or [()] * len(part.speech)
        self._speech = [(*old, *new) for old, new in zip(before, part.speech, strict=True)]
        if self._on_part is not None:
            self._on_part(self._newest)

    def decoded(self) -> DecodedAudio:
        """All samples and all speech, once the last part is there."""
        assert self._newest is not None
        return replace(self._newest, speech=tuple(self._speech))
