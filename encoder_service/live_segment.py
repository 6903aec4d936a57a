"""A segment of live audio that grows: its filter-bank frames stay on the device, each computed once."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

Pcm = npt.NDArray[np.int16]

_FIRST_FRAMES = 256


class LiveSegment:
    """Samples are added by the event loop; frames belong to the thread that launches batches.

    A frame is the log mel energies of `window` samples, every `hop` samples from the segment's start.
    """

    def __init__(self, window: int, hop: int) -> None:
        self.length = 0
        """Samples so far."""
        self._window, self._hop = window, hop
        self._added: deque[Pcm] = deque()
        self._rest: Pcm = np.empty(0, dtype=np.int16)
        self._frames: Tensor | None = None
        self._known = 0

    def add(self, samples: Pcm) -> None:
        """More int16 samples [n]."""
        self._added.append(samples)
        self.length += len(samples)

    def span(self, start: int, end: int) -> LiveSpan:
        """Samples [start, end), of which `end` are there and `start` is a multiple of the hop."""
        if start % self._hop or not 0 <= start <= end - self._window or end > self.length:
            raise ValueError(f"[{start}, {end}) is no span of {self.length} samples on a grid of {self._hop}")
        return LiveSpan(self, start, end)

    def unframed(self) -> Pcm | None:
        """Samples from the first frame on that is not known yet; None when they make no whole frame."""
        pieces = [self._rest]
        while self._added:
            pieces.append(self._added.popleft())
        if len(pieces) > 1:
            self._rest = np.concatenate(pieces)
        return self._rest if len(self._rest) >= self._window else None

    def extend(self, frames: Tensor) -> None:
        """The frames [n, mels] of what unframed() gave."""
        known = self._known + len(frames)
        if self._frames is None or known > len(self._frames):
            room = frames.new_empty(max(known, 2 * self._known, _FIRST_FRAMES), frames.shape[1])
            if self._frames is not None:
                room[: self._known] = self._frames[: self._known]
            self._frames = room
        self._frames[self._known : known] = frames
        self._known = known
        self._rest = self._rest[len(frames) * self._hop :]

    def frames(self, start: int, end: int) -> Tensor:
        """Frames [n, mels] of samples [start, end), as of a clip of them alone."""
        first = start // self._hop
        last = first + 1 + (end - start - self._window) // self._hop
        if self._frames is None or last > self._known:
            raise RuntimeError(f"frames up to {last} are wanted, {self._known} are known")
        return self._frames[first:last]


@dataclass(frozen=True, slots=True, eq=False)
class LiveSpan:
    """Samples [start, end) of a live segment."""

    segment: LiveSegment
    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start

    def frames(self) -> Tensor:
        """[n, mels] on the device, once the segment's samples have been framed."""
        return self.segment.frames(self.start, self.end)


def unframed(spans: list[LiveSpan]) -> dict[LiveSegment, Pcm]:
    """What has to be framed before the frames of `spans` are known."""
    waiting: dict[LiveSegment, Pcm] = {}
    for segment in {span.segment for span in spans}:
        samples = segment.unframed()
        if samples is not None:
            waiting[segment] = samples
    return waiting
