"""Chooses the next token of every row of a batch: greedy in one step, the rest row by row."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from decoder_service.engines.base import Sampling


class Chooser:
    """One request's sampling state: its random generator and the tokens that its penalty counts."""

    def __init__(self, sampling: Sampling, prompt_ids: Sequence[int], vocab_size: int, device: torch.device):
        self.sampling = sampling
        self._generator: torch.Generator | None = None
        self._seen: Tensor | None = None
        if sampling.temperature > 0 and sampling.seed is not None:
            self._generator = torch.Generator(device).manual_seed(sampling.seed % 2**63)
        if sampling.repetition_penalty != 1.0:
            self._seen = torch.zeros(vocab_size, dtype=torch.bool, device=device)
            self._seen[torch.tensor(sorted(set(prompt_ids)), dtype=torch.long, device=device)] = True

    @property
    def plain_greedy(self) -> bool:
        return self.sampling.temperature == 0 and self._seen is None

    def choose(self, logits: Tensor) -> Tensor:
        """Id (int64 scalar) from logits [vocab]: penalty, temperature, top-k, top-p, in this order."""
        if self._seen is not None:
            penalty = self.sampling.repetition_penalty
            penalised = torch.where(logits > 0, logits / penalty, logits * penalty)
            logits = torch.where(self._seen, penalised, logits)
        token = logits.argmax() if self.sampling.temperature == 0 else self._draw(logits)
        if self._seen is not None:
            self._seen[token] = True
        return token

    def _draw(self, logits: Tensor) -> Tensor:
        """Id (int64 scalar) by chance; the best one where the logits make no probabilities to draw from."""
        kept, ids = (logits / self.sampling.temperature).sort(descending=True)
        if self.sampling.top_k:
            kept, ids = kept[: self.sampling.top_k], ids[: self.sampling.top_k]
        probabilities = kept.softmax(-1)
        if self.sampling.top_p < 1:
            # A token stays while the mass before it is below top_p, so the best one always stays.
            before = probabilities.cumsum(-1) - probabilities
            probabilities = probabilities.where(before < self.sampling.top_p, 0)
        # NaN in one row must not end the others: multinomial raises, on a GPU for the whole process. The
        # choice is made on the device, without waiting for it.
        sound = probabilities.sum() > 0
        place = torch.multinomial(probabilities.where(sound, 1), 1, generator=self._generator).squeeze(0)
        return ids[place].where(sound, logits.argmax())


def choose_tokens(logits: Tensor, choosers: Sequence[Chooser]) -> Tensor:
    """Ids int64 [B, T] from float32 logits [B, T, vocab], one chooser per row.

    A row that does not choose greedily has only its first token chosen: the next depends on it.
    """
    tokens = logits.argmax(-1)
    for row, chooser in enumerate(choosers):
        if not chooser.plain_greedy:
            tokens[row, 0] = chooser.choose(logits[row, 0])
    return tokens


def log_probs_of(logits: Tensor, tokens: Tensor) -> Tensor:
    """Log probabilities [B, T] of tokens [B, T] under the unmodified logits [B, T, vocab]."""
    return logits.log_softmax(-1).gather(-1, tokens[..., None]).squeeze(-1)
