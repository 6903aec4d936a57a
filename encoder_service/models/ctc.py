"""CTC head, and compact posteriors: what alignment and partial text need of a 60,515-word distribution."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoder_service.models.kernels import group_peaks


@dataclass(frozen=True)
class CompactPosteriors:
    """Per frame: the k likeliest tokens besides the blank, the blank, and the mass of all other tokens.

    top_ids int32 [T, k] and top_log_probs float32 [T, k], likeliest first; blank_log_probs and
    remainder_log_probs float32 [T], the latter -inf when nothing is left. exp() over one frame sums to 1.
    """

    top_ids: Tensor
    top_log_probs: Tensor
    blank_log_probs: Tensor
    remainder_log_probs: Tensor
    blank_id: int

    @property
    def greedy_ids(self) -> Tensor:
        """Likeliest entry per frame, int32 [T], before repeats and blanks are dropped."""
        blank_wins = self.blank_log_probs > self.top_log_probs[:, 0]
        return self.top_ids[:, 0].masked_fill(blank_wins, self.blank_id)


class CtcHead(nn.Module):
    """Projection to the CTC vocabulary (keys `ctc.ctc_lo.*`)."""

    def __init__(self, size: int, vocab_size: int, blank_id: int) -> None:
        super().__init__()
        self.ctc_lo = nn.Linear(size, vocab_size)
        self.blank_id = blank_id

    def forward(self, hidden: Tensor) -> Tensor:
        """Dense log-probabilities float32 [..., T, vocab] of hidden states [..., T, size]."""
        return self._logits(hidden).log_softmax(dim=-1)

    def _logits(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.ctc_lo(hidden.to(self.ctc_lo.weight.dtype))
        return logits.float()


class CompactHead:
    """Compact posteriors straight from hidden states; only `chunk` dense frames exist at a time.

    Operands of the product in `dtype`, logits and everything after them in float32. Keeps a copy of the
    weights in which the vocabulary is padded to whole groups of columns.
    """

    WIDTH = 64

    def __init__(self, head: CtcHead, dtype: torch.dtype = torch.float32, chunk: int | None = None) -> None:
        self.blank_id, self.vocab_size = head.blank_id, head.ctc_lo.out_features
        weight = head.ctc_lo.weight.detach()
        self._chunk = chunk or (1024 if weight.is_cuda else 256)
        spare = -self.vocab_size % self.WIDTH
        self._weight = F.pad(weight.to(dtype), (0, 0, 0, spare))
        bias = head.ctc_lo.bias.detach().float()
        self._blank_bias = bias[self.blank_id].clone()
        # The blank is reported apart, so it never competes for a place among the likeliest.
        self._bias = F.pad(bias, (0, spare), value=-torch.inf)
        self._bias[self.blank_id] = -torch.inf

    @torch.no_grad()
    def __call__(self, hidden: Tensor, k: int) -> CompactPosteriors:
        """Of hidden states [N, size]."""
        parts = [
            self._compact(chunk, min(k, self.vocab_size - 1)) for chunk in torch.split(hidden, self._chunk)
        ]
        ids, tops, blank, rest = (torch.cat(column) for column in zip(*parts, strict=True))
        return CompactPosteriors(ids, tops, blank, rest, self.blank_id)

    def _logits(self, hidden: Tensor) -> Tensor:
        """Without bias, float32 [n, padded vocabulary]."""
        hidden = hidden.to(self._weight.dtype)
        if hidden.is_cuda and hidden.dtype is not torch.float32 and hasattr(torch.ops.aten.mm, "dtype"):
            return torch.mm(hidden, self._weight.t(), out_dtype=torch.float32)
        return torch.mm(hidden.float(), self._weight.t().float())

    def _compact(self, hidden: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The k likeliest lie in the k groups with the highest peaks; only those are searched."""
        logits = self._logits(hidden)
        peaks, sums = group_peaks(logits, self._bias, self.WIDTH)
        chosen = peaks.topk(min(k, peaks.shape[1]), dim=-1, sorted=False).indices
        columns = (chosen[..., None] * self.WIDTH + self._lanes(chosen)).flatten(1)
        candidates = logits.gather(-1, columns) + self._bias[columns]
        top, at = candidates.topk(k, dim=-1)
        # Summing again without the named entries keeps a tiny remainder exact; 1 - sum would cancel it.
        others = (sums.scatter(-1, chosen, -torch.inf), candidates.scatter(-1, at, -torch.inf))
        rest = torch.cat(others, dim=-1).logsumexp(dim=-1)
        blank = logits[:, self.blank_id] + self._blank_bias
        total = torch.cat((top, blank[:, None], rest[:, None]), dim=-1).logsumexp(dim=-1)
        return columns.gather(-1, at).int(), top - total[:, None], blank - total, rest - total

    def _lanes(self, like: Tensor) -> Tensor:
        return torch.arange(self.WIDTH, device=like.device)
