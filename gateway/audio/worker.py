"""The worker side of AudioPool: one process that decodes one recording at a time into a file."""

from __future__ import annotations

import io
import os
import resource
import signal
import threading
from dataclasses import dataclass
from multiprocessing import connection, parent_process
from typing import BinaryIO

from gateway.audio.decode import open_recording
from gateway.audio.errors import AudioTooLarge
from gateway.audio.types import AudioInfo, DecodeLimits, DecodeOptions


@dataclass(frozen=True, slots=True)
class DecodeJob:
    """Decode `source` (the bytes themselves, or a path) into the existing file `target`.

    The target receives raw float32, channels interleaved.
    """

    source: bytes | str
    target: str
    options: DecodeOptions
    limits: DecodeLimits


@dataclass(frozen=True, slots=True)
class DecodeReport:
    """What a job wrote: num_frames x num_channels samples."""

    num_frames: int
    num_channels: int
    info: AudioInfo


def start_worker(max_memory_bytes: int) -> int:
    """Prepares a fresh worker process; returns its process id."""
    # Ctrl-C reaches the whole process group; the parent ends its workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_DATA, (max_memory_bytes, max_memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    return os.getpid()


def _exit_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def run_job(job: DecodeJob) -> DecodeReport:
    """Decodes in this process. Raises AudioError subclasses."""
    try:
        with _source(job.source) as source, open(job.target, "r+b") as target:
            decoding = open_recording(source, job.options, job.limits)
            frames = channels = 0
            for block in decoding:
                frames, channels = frames + len(block), block.shape[1]
                target.write(block.tobytes())
    except MemoryError as error:
        raise AudioTooLarge("decoding needs more memory than allowed") from error
    return DecodeReport(frames, channels, decoding.info)


def _source(source: bytes | str) -> BinaryIO:
    return io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb")
