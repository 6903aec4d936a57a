"""The audio of a batch on the device: whole clips, and what is new of live segments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from encoder_service.frontend import Frontend
from encoder_service.live_segment import LiveSegment, unframed
from encoder_service.messages import EncodeItem
from encoder_service.transfer import Transfer
from encoder_service.waves import Waves


@dataclass(frozen=True, slots=True, eq=False)
class BatchInputs:
    """`waves` holds the clips of items that are not live, in their order, then new audio of `growing`.

    `spoken`: the clips whose voices are wanted. Made and used by the thread that launches batches.
    """

    items: tuple[EncodeItem, ...]
    waves: Waves | None
    growing: tuple[LiveSegment, ...]
    spoken: list[int]

    @classmethod
    def of(cls, items: Sequence[EncodeItem], frontend: Frontend, transfer: Transfer) -> BatchInputs:
        whole = [item for item in items if item.live is None]
        waiting = unframed([item.live for item in items if item.live is not None])
        clips = [*(item.samples for item in whole), *waiting.values()]
        waves = Waves.pack(clips, frontend.hop, frontend.window_size, transfer) if clips else None
        spoken = [at for at, item in enumerate(whole) if item.speakers]
        return cls(tuple(items), waves, tuple(waiting), spoken)

    def features(self, frontend: Frontend, transfer: Transfer) -> Tensor:
        """Features [T, F] of all items, one after another. Live segments learn their new frames."""
        if self.waves is not None and all(item.live is None for item in self.items):
            return frontend.packed(self.waves, transfer)
        parts: list[Tensor] = []
        if self.waves is not None:
            fbank, counts = frontend.packed_fbank(self.waves, transfer)
            parts = list(torch.split(fbank[: int(counts.sum())], counts.tolist()))
        whole = len(parts) - len(self.growing)
        for segment, frames in zip(self.growing, parts[whole:], strict=True):
            segment.extend(frames)
        clips = iter(parts[:whole])
        rows = [next(clips) if item.live is None else item.live.frames() for item in self.items]
        return frontend.stack(torch.cat(rows), np.array(list(map(len, rows)), dtype=np.int32), transfer)
