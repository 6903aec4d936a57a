"""The audio a session may still need, addressed by absolute sample positions, in bounded memory."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

Pcm = NDArray[np.int16]
Samples = NDArray[np.float32]


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
        """Nothing before `position` will be read again."""
        self.start = max(self.start, min(position, self.end))
        while self._blocks and self._first + len(self._blocks[0]) <= self.start:
            self._first += len(self._blocks.popleft())

    def read(self, start: int, end: int) -> Samples:
        """Samples [start, end) as float32 [n] in [-1, 1]; IndexError for what is gone or not there yet."""
        if not self.start <= start <= end <= self.end:
            raise IndexError(f"[{start}, {end}) is not within [{self.start}, {self.end})")
        out = np.empty(end - start, dtype=np.float32)
        position = self._first
        for block in self._blocks:
            low, high = max(start, position), min(end, position + len(block))
            if low < high:
                out[low - start : high - start] = block[low - position : high - position]
            position += len(block)
        out /= np.float32(32768)
        return out

    @property
    def nbytes(self) -> int:
        """Memory of the samples held."""
        return sum(block.nbytes for block in self._blocks)
