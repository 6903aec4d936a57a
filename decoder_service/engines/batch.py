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
from decoder_service.engines.sampling import Chooser


@dataclass(slots=True, eq=False)
class Row:
    """One request inside a batch."""

    request: GenerationRequest
    chooser: Chooser
    stop_ids: frozenset[int]
    length: int
    """Positions that the row occupies in the cache."""
    generated: int = 0

    def accept(self, token: int, log_prob: float | None) -> TokenDelta:
        """Count one chosen token and say what the caller sees of it."""
        if token in self.stop_ids:
            return TokenDelta((), finish=FinishReason.STOP)
        self.generated += 1
        done = self.generated >= self.request.sampling.max_tokens
        log_probs = () if log_prob is None else (log_prob,)
        return TokenDelta((token,), log_probs, FinishReason.LENGTH if done else None)


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

    def positions(self) -> Tensor:
        """Position [B, 1] of the next token of each row."""
        return torch.tensor([[row.length] for row in self.rows], device=self.last.device)

    def attention_mask(self) -> Tensor:
        """[B, S + 1] with 1 on each row's own positions and on the token about to be added."""
        return left_padded_mask([row.length + 1 for row in self.rows], self.width + 1, self.last.device)

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


def _widen(states: Tensor, width: int) -> Tensor:
    return pad(states, (0, 0, width - states.shape[2], 0))


def left_padded_mask(lengths: Sequence[int], width: int, device: torch.device) -> Tensor:
    """int64 [B, width], 1 on the last lengths[i] columns of row i."""
    columns = torch.arange(width, device=device)
    first = width - torch.tensor(lengths, device=device)
    return (columns >= first[:, None]).long()
