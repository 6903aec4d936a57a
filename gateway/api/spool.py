"""Collects an incoming recording with its limit enforced on the way: small in memory, else in a file."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from tandem.errors import LimitExceeded

_BLOCK = 1 << 20


class AudioSpool:
    """Takes a recording piece by piece; memory holds at most 1 MiB of it. An async context manager.

    Raises LimitExceeded with the first byte beyond `max_bytes`.
    """

    def __init__(self, max_bytes: int) -> None:
        self.size = 0
        self._max_bytes = max_bytes
        self._block = bytearray()
        self._file: IO[bytes] | None = None

    async def write(self, data: bytes) -> None:
        self.size += len(data)
        if self.size > self._max_bytes:
            raise LimitExceeded(f"the audio exceeds the limit of {self._max_bytes} bytes")
        self._block += data
        if len(self._block) > _BLOCK:
            await self._flush()

    async def audio(self) -> bytes | Path:
        """What was written, as bytes or as the file that lives until the spool is closed."""
        if self._file is None:
            return bytes(self._block)
        await self._flush()
        return Path(self._file.name)

    def close(self) -> None:
        """Drop everything. Closing twice is fine."""
        self._block.clear()
        if self._file is not None:
            self._file.close()
            self._file = None

    async def _flush(self) -> None:
        if self._file is None:
            self._file = tempfile.NamedTemporaryFile(prefix="tandem-upload-")  # noqa: SIM115
        await asyncio.to_thread(_append, self._file, bytes(self._block))
        self._block.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _append(file: IO[bytes], block: bytes) -> None:
    file.write(block)
    file.flush()
