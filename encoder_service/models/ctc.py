"""CTC head, and compact posteriors: what alignment and partial text need of a 60,515-word distribution."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class CompactPosteriors:
    """Per frame: the k likeliest tokens besides the blank, the blank, and the mass of all other tokens.

    top_ids int32 [..., T, k] and top_log_probs float32 [..., T, k], likeliest first;
    blank_log_probs and remainder_log_probs [..., T], the latter -inf when nothing is left. exp() over one
    frame sums to 1.
    """

    top_ids: Tensor
    top_log_probs: Tensor
    blank_log_probs: Tensor
    remainder_log_probs: Tensor
    blank_id: int

    @property
    def greedy_ids(self) -> Tensor:
        """Likeliest entry per frame, int32 [..., T], before repeats and blanks are dropped."""
        blank_wins = self.blank_log_probs > self.top_log_probs[..., 0]
        return self.top_ids[..., 0].masked_fill(blank_wins, self.blank_id)


class CtcHead(nn.Module):
    """Projection to the CTC vocabulary (keys `ctc.ctc_lo.*`)."""

    def __init__(self, size: int, vocab_size: int, blank_id: int) -> None:
        super().__init__()
        self.ctc_lo = nn.Linear(size, vocab_size)
        self.blank_id = blank_id

    def forward(self, hidden: Tensor) -> Tensor:
        """Dense log-probabilities float32 [..., T, vocab] of hidden states [..., T, size]."""
        return self._logits(hidden).log_softmax(dim=-1)

    @torch.no_grad()
    def compact(self, hidden: Tensor, k: int, chunk_frames: int = 512) -> CompactPosteriors:
        """Compact posteriors of hidden [..., T, size]; only `chunk_frames` dense frames exist at a time."""
        flat = hidden.reshape(-1, hidden.shape[-1])
        parts = [self._compact_chunk(chunk, k) for chunk in torch.split(flat, chunk_frames)]
        shape = hidden.shape[:-1]
        ids, tops, blank, rest = (torch.cat(column) for column in zip(*parts, strict=True))
        return CompactPosteriors(
            ids.view(*shape, -1), tops.view(*shape, -1), blank.view(shape), rest.view(shape), self.blank_id
        )

    def _logits(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.ctc_lo(hidden.to(self.ctc_lo.weight.dtype))
        return logits.float()

    def _compact_chunk(self, hidden: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        logits = self._logits(hidden)
        total = logits.logsumexp(dim=-1, keepdim=True)
        blank = logits[:, self.blank_id] - total[:, 0]
        logits[:, self.blank_id] = -torch.inf
        top, ids = logits.topk(min(k, logits.shape[-1] - 1), dim=-1)
        # Summing again without the named entries keeps a tiny remainder exact; 1 - sum would cancel it.
        logits.scatter_(-1, ids, -torch.inf)
        rest = logits.logsumexp(dim=-1) - total[:, 0]
        return ids.int(), top - total, blank, rest
