"""Recordings on their way in: small ones in memory, others in a file that never outlives the request."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.api.spool import AudioSpool
from tandem.errors import LimitExceeded

BLOCK = bytes(range(256)) * 1024


async def test_a_small_recording_stays_in_memory() -> None:
    async with AudioSpool(1_000_000) as spool:
        await spool.write(b"abc")
        await spool.write(b"def")
        assert await spool.audio() == b"abcdef"


async def test_a_large_recording_is_a_file_until_the_spool_is_closed() -> None:
    async with AudioSpool(100_000_000) as spool:
        for _ in range(17):
            await spool.write(BLOCK)
        path = await spool.audio()
        assert isinstance(path, Path)
        assert path.read_bytes() == BLOCK * 17
    assert not path.exists()


async def test_the_first_byte_too_many_is_refused_and_nothing_is_left() -> None:
    async with AudioSpool(len(BLOCK) * 8) as spool:
        for _ in range(8):
            await spool.write(BLOCK)
        path = await spool.audio()
        with pytest.raises(LimitExceeded, match=str(len(BLOCK) * 8)):
            await spool.write(b"x")
    assert isinstance(path, Path)
    assert not path.exists()
