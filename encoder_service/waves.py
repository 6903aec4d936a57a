"""The clips of a batch, end to end in one buffer: one copy to the device, whatever their number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from encoder_service.transfer import Transfer

Samples = npt.NDArray[np.float32] | npt.NDArray[np.int16]
"""Mono audio [S]: float32 in [-1, 1], or int16, of which 32768 is 1."""

FULL_SCALE = 32768.0


@dataclass(frozen=True, slots=True, eq=False)
class Waves:
    """Clips on a device. samples [S] float32 or int16; clip i is `lengths[i]` samples from `starts[i]` on.

    Each starts at a multiple of the hop that it was packed for and has room for a whole window. What lies
    between clips is arbitrary.
    """

    samples: Tensor
    starts: tuple[int, ...]
    lengths: tuple[int, ...]

    @classmethod
    def pack(cls, clips: Sequence[Samples], hop: int, window: int, transfer: Transfer) -> Waves:
        """Puts clips on the transfer's device, as int16 when all of them are."""
        lengths = tuple(len(clip) for clip in clips)
        rooms = [-(-max(length, window) // hop) * hop for length in lengths]
        ends = np.cumsum(rooms).tolist()
        starts = tuple([0, *ends[:-1]])
        halves = all(clip.dtype == np.int16 for clip in clips)
        buffer = transfer.staging(ends[-1], torch.int16 if halves else torch.float32)
        view = buffer.numpy()
        for start, clip in zip(starts, clips, strict=True):
            here = view[start : start + len(clip)]
            if clip.dtype == view.dtype:
                here[:] = clip
            else:
                np.divide(clip, FULL_SCALE, out=here, dtype=np.float32)
        return cls(transfer.up(buffer), starts, lengths)

    def scale(self, full: float) -> float:
        """What samples are multiplied by to give full scale the value `full`."""
        return full / FULL_SCALE if self.samples.dtype is torch.int16 else full
