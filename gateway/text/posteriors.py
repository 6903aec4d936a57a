"""CTC posteriors as the encoder sends them: per frame the blank, the best K tokens and the rest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tandem.ctc import best_path

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class CtcPosteriors:
    """Natural-log posteriors of one segment of T frames.

    top_ids int32 [T, K] and top_log_probs float32 [T, K]: the most probable non-blank tokens, best
    first. blank float32 [T]. remainder float32 [T]: log of the mass of all other tokens together.
    """

    top_ids: NDArray[np.int32]
    top_log_probs: FloatArray
    blank: FloatArray
    remainder: FloatArray
    vocab_size: int
    blank_id: int

    def __post_init__(self) -> None:
        frames, _ = self.top_ids.shape
        if self.top_log_probs.shape != self.top_ids.shape:
            raise ValueError(f"top_log_probs {self.top_log_probs.shape} != top_ids {self.top_ids.shape}")
        if self.blank.shape != (frames,) or self.remainder.shape != (frames,):
            raise ValueError(f"blank {self.blank.shape} and remainder {self.remainder.shape} need [{frames}]")
        if not 0 <= self.blank_id < self.vocab_size:
            raise ValueError(f"blank {self.blank_id} is outside the vocabulary of {self.vocab_size}")

    @property
    def num_frames(self) -> int:
        return len(self.blank)

    @classmethod
    def from_dense(cls, log_probs: FloatArray, blank_id: int, top_k: int) -> CtcPosteriors:
        """Compacts dense log posteriors, float32 [T, vocab]."""
        frames, vocab_size = log_probs.shape
        tokens = np.array(log_probs, dtype=np.float32)
        blank = tokens[:, blank_id].copy()
        tokens[:, blank_id] = -np.inf
        top_k = min(top_k, vocab_size - 1)
        part = np.argpartition(tokens, vocab_size - top_k, axis=1)[:, vocab_size - top_k :]
        order = np.argsort(-np.take_along_axis(tokens, part, axis=1), axis=1, kind="stable")
        ids = np.take_along_axis(part, order, axis=1)
        top = np.take_along_axis(tokens, ids, axis=1)
        np.put_along_axis(tokens, ids, -np.inf, axis=1)
        with np.errstate(divide="ignore"):
            rest = np.log(np.exp(tokens.astype(np.float64)).sum(axis=1)).astype(np.float32)
        return cls(ids.astype(np.int32), top, blank, rest.reshape(frames), vocab_size, blank_id)

    def greedy_ids(self) -> list[int]:
        """Best path, repeats collapsed, blanks dropped."""
        return best_path(self.top_ids, self.top_log_probs, self.blank, self.blank_id)[0]


@dataclass(frozen=True)
class TokenLogProbs:
    """Natural-log posteriors of chosen tokens over the T frames of one segment.

    ids int64 [n], distinct and ascending; columns float32 [T, n] in their order; blank float32 [T].
    """

    ids: NDArray[np.int64]
    columns: FloatArray
    blank: FloatArray

    def __post_init__(self) -> None:
        if self.columns.shape != (len(self.blank), len(self.ids)):
            raise ValueError(f"columns {self.columns.shape} need [{len(self.blank)}, {len(self.ids)}]")
