"""The audio a session may still need, addressed by absolute sample positions, in bounded memory."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Pcm = NDArray[np.int16]


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """Samples [start, end) of a stream. It shares its blocks, which end at `last`: nothing is copied."""

    start: int
    end: int
    blocks: tuple[Pcm, ...]
    last: int

    def read(self, start: int, end: int) -> Pcm:
        """Samples [start, end), int16 [n]; IndexError for what is not in the clip."""
        if not self.start <= start <= end <= self.end:
            raise IndexError(f"[{start}, {end}) is not within [{self.start}, {self.end})")
        parts: list[Pcm] = []
        behind = self.last
        # What is new is read most often.
        for block in reversed(self.blocks):
            first = behind - len(block)
            if first < end and behind > start:
                parts.append(block[max(0, start - first) : end - first])
            if first <= start:
                break
            behind = first
        return np.concatenate(parts[::-1]) if parts else np.empty(0, dtype=np.int16)

    @property
    def nbytes(self) -> int:
        """Memory of the samples."""
        return 2 * (self.end - self.start)


class AudioRing:
    """Samples [start, end) of a stream. Blocks are kept as they came; dropping copies nothing."""

    def __init__(self) -> None:
        self._blocks: deque[Pcm] = deque()
        self._first = 0
        self.start = 0
        self.end = 0

    def append(self, block: Pcm) -> None:
        """Adds int16 samples [n] at `end`."""
        if len(block):
            self._blocks.append(block)
            self.end += len(block)

    def drop_before(self, position: int) -> None:
        """Nothing before `position` will be asked for again."""
        self.start = max(self.start, min(position, self.end))
        while self._blocks and self._first + len(self._blocks[0]) <= self.start:
            self._first += len(self._blocks.popleft())

    def clip(self, start: int, end: int) -> Clip:
        """Samples [start, end), which stay whatever is dropped; IndexError for what is gone or to come."""
        if not self.start <= start <= end <= self.end:
            raise IndexError(f"[{start}, {end}) is not within [{self.start}, {self.end})")
        return Clip(start, end, tuple(self._blocks), self.end)

    @property
    def nbytes(self) -> int:
        """Memory of the samples held."""
        return 2 * (self.end - self._first)
