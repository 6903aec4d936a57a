"""A running batch over one left-padded key-value cache: rows join after prefill and leave when done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache

from decoder_service.engines.base import FinishReason, GenerationRequest, TokenDelta
from decoder_service.engines.draft import DraftFollower
from decoder_service.engines.sampling import Chooser


@dataclass(slots=True, eq=False)
class Row:
    """One request inside a batch."""

    request: GenerationRequest
    chooser: Chooser
    stop_ids: frozenset[int]
    length: int
    """Positions that the row occupies in the cache."""
    draft: DraftFollower
    generated: int = 0

    def propose(self, count: int) -> list[int]:
        """At most `count` draft tokens that may come next, and no more than the row may still generate."""
        return self.draft.propose_likely(min(count, self.request.sampling.max_tokens - self.generated - 1))

    def accept(self, tokens: Sequence[int], log_probs: Sequence[float]) -> TokenDelta:
        """Count chosen tokens and say what the caller sees of them; `log_probs` has one for each, or none."""
        self.draft.accept(tokens)
        end = next((at for at, token in enumerate(tokens) if token in self.stop_ids), None)
        shown = tuple(tokens[:end])
        self.generated += len(shown)
        done = self.generated >= self.request.sampling.max_tokens
        finish = FinishReason.LENGTH if done else None
        return TokenDelta(shown, tuple(log_probs[:end]), finish if end is None else FinishReason.STOP)


class Batch:
    """Rows [B] and, per layer, keys and values [B, heads, S, head_dim].

    Row i fills the last rows[i].length positions of S. `last` (int64 [B]) is each row's newest token, not
    yet in the cache. Keys are stored with their rotary positions applied, so moving a row to another
    padding does not change what it attends to.
    """

    def __init__(self, rows: list[Row], cache: DynamicCache, last: Tensor) -> None:
        self.rows, self.cache, self.last = rows, cache, last

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def width(self) -> int:
        return int(self.cache.get_seq_length())

    def positions(self, count: int) -> Tensor:
        """Positions [B, count] of the next tokens of each row."""
        lengths = torch.tensor([[row.length] for row in self.rows], device=self.last.device)
        return lengths + torch.arange(count, device=self.last.device)

    def attention_mask(self, count: int) -> Tensor:
        """[B, S + count] with 1 on each row's own positions and on the tokens about to be added."""
        lengths = [row.length + count for row in self.rows]
        return left_padded_mask(lengths, self.width + count, self.last.device)

    def settle(self, fed: int, kept: Sequence[int]) -> None:
        """Of the last `fed` columns, row i keeps the first kept[i] and forgets the others."""
        for row, count in zip(self.rows, kept, strict=True):
            row.length += count
        if min(kept) < max(kept):
            self._align([self.width - fed + count for count in kept])
        elif kept[0] < fed:
            self._crop(self.width - fed + kept[0])

    def _crop(self, width: int) -> None:
        for layer in _layers(self.cache):
            layer.keys, layer.values = layer.keys[:, :, :width], layer.values[:, :, :width]

    def _align(self, ends: Sequence[int]) -> None:
        """Move each row to the right, so that column ends[i] - 1 becomes its last."""
        width = max(row.length for row in self.rows)
        columns = torch.arange(width, device=self.last.device)
        begins = torch.tensor(ends, device=self.last.device)[:, None] - width
        # What lies before a row's first position is never attended to: any column will do.
        chosen = (begins + columns).clamp(min=0)
        for layer in _layers(self.cache):
            layer.keys = _take_columns(layer.keys, chosen)
            layer.values = _take_columns(layer.values, chosen)

    def join(self, other: Batch) -> None:
        """Append the other batch's rows; the narrower cache gets more padding."""
        width = max(self.width, other.width)
        for mine, theirs in zip(_layers(self.cache), _layers(other.cache), strict=True):
            mine.keys = torch.cat([_widen(mine.keys, width), _widen(theirs.keys, width)])
            mine.values = torch.cat([_widen(mine.values, width), _widen(theirs.values, width)])
        self.rows += other.rows
        self.last = torch.cat([self.last, other.last])

    def keep(self, indices: Sequence[int]) -> None:
        """Drop all rows but these, and the padding that no row needs any more."""
        self.rows = [self.rows[index] for index in indices]
        begin = self.width - max((row.length for row in self.rows), default=0)
        chosen = torch.tensor(indices, dtype=torch.long, device=self.last.device)
        for layer in _layers(self.cache):
            layer.keys = layer.keys.index_select(0, chosen)[:, :, begin:].contiguous()
            layer.values = layer.values.index_select(0, chosen)[:, :, begin:].contiguous()
        self.last = self.last.index_select(0, chosen)


def _layers(cache: DynamicCache) -> list[Any]:
    """One object per layer whose `keys` and `values` may be replaced."""
    return list(cache.layers)


def _take_columns(states: Tensor, columns: Tensor) -> Tensor:
    """[B, heads, width, head_dim] from states [B, heads, S, head_dim] and columns [B, width] of each row."""
    _, heads, _, head_dim = states.shape
    return states.gather(2, columns[:, None, :, None].expand(-1, heads, -1, head_dim))


def _widen(states: Tensor, width: int) -> Tensor:
    return pad(states, (0, 0, width - states.shape[2], 0))


def left_padded_mask(lengths: Sequence[int], width: int, device: torch.device) -> Tensor:
    """int64 [B, width], 1 on the last lengths[i] columns of row i."""
    columns = torch.arange(width, device=device)
    first = width - torch.tensor(lengths, device=device)
    return (columns >= first[:, None]).long()
