"""Segments packed one after another: a batch without padding, whatever its lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

IntArray = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Where segments of `lengths` lie on an axis of `rows` rows, of which those past the last belong to none.

    There may be up to `slots` segments, none longer than `longest`; where it is `padded`, these three are the
    same for batches of other lengths. With `stacked` k > 1 the rows are stacks of k frames of another axis,
    on which the same segments have `frames` frames each.
    """

    lengths: tuple[int, ...]
    rows: int
    slots: int
    longest: int
    stacked: int = 1
    frames: tuple[int, ...] = ()
    padded: bool = False

    @classmethod
    def of(cls, lengths: Sequence[int]) -> Layout:
        """No row to spare."""
        return cls(tuple(lengths), sum(lengths), len(lengths), max(lengths))

    def stack(self, k: int) -> Layout:
        """The layout of ceil(length / k) stacks of k frames; room for every way to cut these rows."""
        if k == 1:
            return self
        lengths = tuple(-(-length // k) for length in self.lengths)
        rows = self.rows // k + self.slots if self.padded else sum(lengths)
        return Layout(lengths, rows, self.slots, -(-self.longest // k), k, self.lengths, self.padded)

    def table(self) -> IntArray:
        """What `Packing` reads on the device: bounds, starts, ends and, of stacks, sources, end to end."""
        edges = np.zeros(self.slots + 1, dtype=np.int32)
        count = len(self.lengths)
        np.cumsum(self.lengths, out=edges[1 : count + 1])
        edges[count + 1 :] = edges[count]
        unused = np.zeros(self.rows - int(edges[-1]), dtype=np.int32)
        parts = [edges]
        for ends in (edges[:count], edges[1 : count + 1]):
            parts += [np.repeat(ends, self.lengths), unused]
        if self.stacked > 1:
            first = np.concatenate(([0], np.cumsum(self.frames[:-1]))).astype(np.int32)
            own = np.arange(edges[-1], dtype=np.int32) - np.repeat(edges[:count], self.lengths)
            parts += [np.repeat(first, self.lengths) + own * np.int32(self.stacked), unused]
        return np.concatenate(parts)

    @property
    def table_size(self) -> int:
        return self.slots + 1 + self.rows * (3 if self.stacked > 1 else 2)


@dataclass(frozen=True, slots=True, eq=False)
class Packing:
    """A Layout on a device.

    bounds int32 [slots + 1]: the first row of each segment, then the end of the last one as often as needed.
    starts, ends int32 [rows]: of the segment that each row belongs to; both 0 on rows of none.
    sources int32 [rows]: the first frame of each stack; None unless the layout is one of stacks.
    """

    layout: Layout
    bounds: Tensor
    starts: Tensor
    ends: Tensor
    sources: Tensor | None

    @classmethod
    def of(cls, layout: Layout, table: Tensor) -> Packing:
        """Views of `layout.table()`, int32, wherever it lies now."""
        slots, rows = layout.slots + 1, layout.rows
        sizes = [slots, rows, rows, rows] if layout.stacked > 1 else [slots, rows, rows]
        bounds, *columns = torch.split(table[: layout.table_size], sizes)
        return cls(layout, bounds, columns[0], columns[1], columns[2] if layout.stacked > 1 else None)

    @classmethod
    def on(cls, device: torch.device, lengths: Sequence[int]) -> Packing:
        """Segments of these lengths, no row to spare."""
        layout = Layout.of(lengths)
        return cls.of(layout, torch.from_numpy(layout.table()).to(device))

    @property
    def positions(self) -> Tensor:
        """int32 [rows]: the place of each row in its segment, from 0."""
        return torch.arange(self.layout.rows, device=self.starts.device, dtype=torch.int32) - self.starts

    def within(self, offset: int) -> Tensor:
        """bool [rows]: whether the row `offset` further on belongs to the same segment."""
        row = torch.arange(self.layout.rows, device=self.starts.device, dtype=torch.int32) + offset
        return (row >= self.starts) & (row < self.ends)
