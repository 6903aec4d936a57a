"""The worker side of AudioPool: one process that decodes one recording at a time into a file.

It looks for speech too: both are work of whole cores, which threads of the server would do one by one.
"""

from __future__ import annotations

import io
import os
import resource
import signal
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass
from multiprocessing import connection, parent_process
from pathlib import Path
from typing import BinaryIO

from gateway.audio.decode import open_recording
from gateway.audio.errors import AudioTooLarge
from gateway.audio.types import (
    SAMPLE_RATE,
    AudioInfo,
    DecodeLimits,
    DecodeOptions,
    Samples,
    Stretch,
    to_pcm16,
)
from gateway.vad.detector import DetectorConfig
from gateway.vad.fsmn import FsmnVad
from gateway.vad.segmenter import Segmenter, SpeechSegment
from tandem.heap import keep_buffers

# A part is a tenth of a second's work: the encoder need not wait for the rest of a long recording.
_PART_FRAMES = 60 * SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class DecodeJob:
    """Decode `source` (the bytes themselves, or a path) into the existing file `target`.

    The target receives raw samples, channels interleaved. Speech is looked for where `vad` says how.
    """

    source: bytes | str
    target: str
    options: DecodeOptions
    limits: DecodeLimits
    vad: DetectorConfig | None = None


@dataclass(frozen=True, slots=True)
class DecodedPart:
    """What a job has written so far: num_frames x num_channels samples of a numpy dtype.

    speech: stretches that ended since the part before, by channel. vad_seconds: of all parts.
    """

    num_frames: int
    num_channels: int
    dtype: str
    info: AudioInfo
    speech: tuple[tuple[Stretch, ...], ...]
    vad_seconds: float
    is_last: bool


_vad: FsmnVad | None = None


def start_worker(max_memory_bytes: int) -> int:
    """Prepares a fresh worker process; returns its process id."""
    # Ctrl-C reaches the whole process group; the parent ends its workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_DATA, (max_memory_bytes, max_memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    keep_buffers()
    return os.getpid()


def load_vad(directory: Path) -> None:
    """Gets the network ready for jobs that look for speech. Raises VadModelError."""
    global _vad
    _vad = FsmnVad(directory)


def _exit_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


class _Speech:
    """Looks for speech in each channel of one recording, and keeps the time."""

    def __init__(self, config: DetectorConfig) -> None:
        if _vad is None:
            raise RuntimeError("the pool was made without a VAD model")
        self._vad, self._config = _vad, config
        self._channels: list[Segmenter] = []
        self._found: list[list[SpeechSegment]] = []
        self._num_frames = 0
        self.seconds = 0.0

    def push(self, block: Samples) -> None:
        """Adds a block [n, channels]."""
        began = time.perf_counter()
        while len(self._channels) < block.shape[1]:
            self._channels.append(Segmenter(self._vad, self._config))
            self._found.append([])
        for index, segmenter in enumerate(self._channels):
            self._found[index] += segmenter.push(block[:, index])
        self._num_frames += len(block)
        self.seconds += time.perf_counter() - began

    def finish(self) -> None:
        """Running speech ends with the recording."""
        for segmenter, found in zip(self._channels, self._found, strict=True):
            found += segmenter.finish()

    def take(self) -> tuple[tuple[Stretch, ...], ...]:
        """What has been found in every channel since the last time, none of it beyond the last sample."""
        spans = [[part.samples() for part in found] for found in self._found]
        self._found = [[] for _ in self._found]
        return tuple(tuple((s.start, min(s.stop, self._num_frames)) for s in found) for found in spans)


_running: Generator[DecodedPart, None, None] | None = None


def begin_job(job: DecodeJob) -> DecodedPart:
    """Drops what is left of the job before and starts this one; its first part. Raises AudioError."""
    global _running
    end_job()
    _running = _parts(job)
    return next_part()


def next_part() -> DecodedPart:
    """The next part of a job whose last one was not the last. Raises AudioError."""
    if _running is None:
        raise RuntimeError("no job has begun")
    return next(_running)


def end_job() -> None:
    """Closes the files of a job that nobody wants any more."""
    global _running
    if _running is not None:
        _running.close()
        _running = None


def _parts(job: DecodeJob) -> Generator[DecodedPart, None, None]:
    try:
        with _source(job.source) as source, open(job.target, "r+b") as target:
            decoding = open_recording(source, job.options, job.limits)
            speech = _Speech(job.vad) if job.vad is not None else None
            frames, channels, dtype, part_ends = 0, 0, "", _PART_FRAMES

            def part(*, is_last: bool) -> DecodedPart:
                target.flush()
                found, seconds = (speech.take(), speech.seconds) if speech is not None else ((), 0.0)
                return DecodedPart(frames, channels, dtype, decoding.info, found, seconds, is_last)

            for block in decoding:
                samples = block if decoding.info.fine else to_pcm16(block)
                target.write(samples.tobytes())
                frames, channels, dtype = frames + len(samples), samples.shape[1], samples.dtype.str
                if speech is not None:
                    speech.push(samples)
                if frames >= part_ends:
                    part_ends = frames + _PART_FRAMES
                    yield part(is_last=False)
            if speech is not None:
                speech.finish()
            yield part(is_last=True)
    except MemoryError as error:
        raise AudioTooLarge("decoding needs more memory than allowed") from error


def _source(source: bytes | str) -> BinaryIO:
    return io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb")
