"""A batch that was launched: its results on their way to the host, then cut up by item."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from encoder_service.messages import CompactCtc, EncodedAudio, EncodeItem, FloatArray, KeptCtc, StageTimes
from encoder_service.speaker import PendingSpeakers
from encoder_service.stage_clock import StageClock
from encoder_service.transfer import Landing
from tandem.rpc.tensors import WireTensor

Bounds = dict[int, tuple[int, int]]
"""Of each item that has a part of an array: its first row there and one past its last."""


@dataclass(frozen=True, slots=True, eq=False)
class RowLanding:
    """One array [rows, d] for several items."""

    landing: Landing
    bounds: Bounds

    def parts(self) -> dict[int, Tensor]:
        (rows,) = self.landing.take()
        return self._cut(rows)

    def views(self) -> dict[int, Tensor]:
        """The same, not to be kept."""
        (rows,) = self.landing.wait()
        return self._cut(rows)

    def _cut(self, rows: Tensor) -> dict[int, Tensor]:
        return {row: rows[first:last] for row, (first, last) in self.bounds.items()}


@dataclass(frozen=True, slots=True, eq=False)
class CtcLanding:
    """Compact posteriors of several items: ids, their log-probabilities, blank's, remainder's."""

    landing: Landing
    bounds: Bounds
    vocab_size: int
    blank_id: int

    def parts(self) -> dict[int, CompactCtc]:
        ids, tops, blanks, rest = (column.numpy() for column in self.landing.take())
        return {
            row: CompactCtc(
                ids[first:last],
                tops[first:last],
                blanks[first:last],
                rest[first:last],
                self.vocab_size,
                self.blank_id,
            )
            for row, (first, last) in self.bounds.items()
        }


@dataclass(frozen=True, slots=True)
class Landings:
    """What a batch copies to the host; None what no item asked for."""

    embeds: RowLanding | None = None
    compact: CtcLanding | None = None
    kept: RowLanding | None = None
    dense: RowLanding | None = None
    states: RowLanding | None = None


@dataclass(frozen=True, slots=True, eq=False)
class PendingBatch:
    """What EncoderEngine.launch returns. `frames` and `embed_counts` are those of each item."""

    items: tuple[EncodeItem, ...]
    frames: tuple[int, ...]
    embed_counts: tuple[int, ...]
    landings: Landings
    speakers: PendingSpeakers | None
    clock: StageClock

    def collect(self) -> list[EncodedAudio]:
        landings = self.landings
        embeds = landings.embeds.parts() if landings.embeds else {}
        compact = landings.compact.parts() if landings.compact else {}
        kept = landings.kept.views() if landings.kept else {}
        dense = landings.dense.parts() if landings.dense else {}
        states = landings.states.parts() if landings.states else {}
        spoken = [row for row, item in enumerate(self.items) if item.speakers]
        voices = dict(zip(spoken, self.speakers.wait(), strict=True)) if self.speakers else {}
        silent = StageTimes(*self.clock.seconds())
        times = replace(silent, speakers=self.speakers.seconds()) if self.speakers else silent
        return [
            EncodedAudio(
                num_frames=self.frames[row],
                num_embeds=self.embed_counts[row],
                embeds=to_wire(embeds[row]) if row in embeds else None,
                compact=compact.get(row),
                dense=to_numpy(dense[row]) if row in dense else None,
                encoder_out=to_numpy(states[row]) if row in states else None,
                times=times if item.speakers else silent,
                batch_size=len(self.items),
                speakers=voices.get(row),
                kept=keep(kept[row], compact[row]) if row in kept else None,
            )
            for row, item in enumerate(self.items)
        ]


def keep(hidden: Tensor, compact: CompactCtc) -> KeptCtc:
    """A copy: what is kept for one item must not hold the arrays of its whole batch."""
    return KeptCtc(hidden.numpy().copy(), compact.blank_log_probs.copy())


def to_wire(tensor: Tensor) -> WireTensor:
    """A host tensor as it travels; bfloat16 as its bit pattern."""
    if tensor.dtype is torch.bfloat16:
        return WireTensor.bfloat16(tensor.view(torch.uint16).numpy())
    return WireTensor.of(tensor.numpy())


def to_numpy(tensor: Tensor) -> FloatArray:
    return np.asarray(tensor.numpy(), dtype=np.float32)
