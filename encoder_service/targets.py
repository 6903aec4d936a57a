"""Exact log-probabilities of chosen tokens, to which texts are aligned: a few columns of the CTC head."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np

from encoder_service.messages import FloatArray, KeptCtc
from encoder_service.models.ctc import CtcHead


class TargetHead:
    """The CTC head on the host: a segment's targets are too little work to queue for the device."""

    def __init__(self, head: CtcHead) -> None:
        self._weight: FloatArray = head.ctc_lo.weight.detach().float().cpu().numpy()
        self._bias: FloatArray = head.ctc_lo.bias.detach().float().cpu().numpy()
        self._blank_id = head.blank_id

    @property
    def vocab_size(self) -> int:
        return len(self._bias)

    def log_probs(self, kept: KeptCtc, targets: Sequence[int]) -> FloatArray:
        """Natural log-probabilities of n targets in their order, then of the blank: float32 [T, n + 1]."""
        columns = [*targets, self._blank_id]
        logits = kept.hidden.astype(np.float32, copy=False) @ self._weight[columns].T
        logits += self._bias[columns]
        # The blank is known in full: what is between its logit and its log-probability normalises the frame.
        logits += (kept.blank_log_probs - logits[:, -1])[:, None]
        return logits


class KeptBudget:
    """Bounds the audio whose CTC states wait for targets: `max_seconds` of it at a time."""

    def __init__(self, max_seconds: float) -> None:
        self.max_seconds = max_seconds
        self._kept = 0.0

    @contextlib.contextmanager
    def keeping(self, seconds: float) -> Iterator[bool]:
        """Whether there is room for so many seconds more; it is theirs until the block is left."""
        fits = self._kept + seconds <= self.max_seconds
        self._kept += seconds if fits else 0.0
        try:
            yield fits
        finally:
            self._kept -= seconds if fits else 0.0
