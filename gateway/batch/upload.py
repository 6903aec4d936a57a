"""Receives recordings of a batch into its spool, piece by piece; what breaks off leaves nothing behind."""

from __future__ import annotations

import asyncio
import errno
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from gateway.batch.batch import Batch, BatchRecording
from gateway.batch.manager import BatchManager
from tandem.errors import InvalidRequest, LimitExceeded, Overloaded
from tandem.results import RecognizeOptions

_BLOCK = 1 << 20
_MAX_KEY = 1024


@dataclass(slots=True)
class Incoming:
    """One recording that is arriving. Close it in any case; `finish` hands it over before."""

    manager: BatchManager
    batch: Batch
    key: str
    options: RecognizeOptions
    max_bytes: int
    size: int = 0
    _block: bytearray = field(default_factory=bytearray)
    _file: IO[bytes] | None = None
    _path: Path = field(default_factory=Path)

    @classmethod
    def begin(
        cls, manager: BatchManager, batch: Batch, key: str, options: RecognizeOptions, max_bytes: int
    ) -> Incoming:
        """Raises what makes every byte of this recording futile."""
        if not key or len(key.encode()) > _MAX_KEY:
            raise InvalidRequest.of("recording.key", f"takes 1 to {_MAX_KEY} bytes")
        batch.check_new(key)
        manager.check_room(batch)
        incoming = cls(manager, batch, key, options, max_bytes)
        incoming._path = batch.folder / uuid.uuid4().hex
        return incoming

    async def write(self, data: bytes) -> None:
        """Waits while the spool is full and work goes on that will empty it."""
        if self.size + len(data) > self.max_bytes:
            raise LimitExceeded(f"{self.key}: the audio exceeds the limit of {self.max_bytes} bytes")
        self.batch.check_open()
        await self.manager.space.take(len(data))
        self.size += len(data)
        self._block += data
        self.batch.touched = time.monotonic()
        if len(self._block) >= _BLOCK:
            await self._flush()

    async def finish(self) -> None:
        """Hand the recording over to be recognised."""
        if not self.size:
            raise InvalidRequest.of("recording", f"{self.key}: the audio is empty")
        await self._flush()
        self._close_file()
        result = self._path.with_suffix(".result")
        recording = BatchRecording(self.key, self.options, self._path, self.size, result)
        self.manager.add(self.batch, recording)
        self.size = 0

    def close(self) -> None:
        """Give back the room and the file of a recording that did not arrive whole."""
        self._close_file()
        if self.size:
            self._path.unlink(missing_ok=True)
            self.manager.space.give_back(self.size)
            self.size = 0

    async def _flush(self) -> None:
        block, self._block = bytes(self._block), bytearray()
        try:
            if self._file is None:
                self._file = self._path.open("wb")
            await asyncio.to_thread(self._file.write, block)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise Overloaded("the disk is full", retry_after=60.0) from error
            raise

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
