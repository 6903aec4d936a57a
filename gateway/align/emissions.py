"""Log probabilities of the tokens to be aligned, taken from dense or compact CTC posteriors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gateway.text.posteriors import CtcPosteriors

FloatArray = NDArray[np.float32]

# Stands for zero probability: low enough to be avoided, finite so that a path always exists.
LOG_FLOOR = np.float32(-30.0)


def dense_emissions(
    log_probs: FloatArray, targets: NDArray[np.int64], blank_id: int
) -> tuple[FloatArray, FloatArray]:
    """Emissions [T, L] of the targets and [T] of the blank, from log posteriors [T, vocab]."""
    return log_probs[:, targets], log_probs[:, blank_id]


def compact_emissions(
    posteriors: CtcPosteriors, targets: NDArray[np.int64], silent: NDArray[np.bool_] | None = None
) -> tuple[FloatArray, FloatArray]:
    """Emissions [T, L] of the targets and [T] of the blank, from compact posteriors.

    A target outside a frame's best K gets its even share of the remaining mass. silent [vocab] marks
    tokens that nobody hears, such as punctuation: where the network writes one, it counts as blank.
    """
    top_k = posteriors.top_ids.shape[1]
    unseen = posteriors.remainder - np.log(max(1, posteriors.vocab_size - top_k - 1))
    if top_k:
        unseen = np.minimum(unseen, posteriors.top_log_probs[:, -1])
    unique, inverse = np.unique(targets, return_inverse=True)
    values = np.repeat(np.maximum(unseen, LOG_FLOOR)[:, None], len(unique), axis=1).astype(np.float32)
    if top_k and len(unique):
        column = np.minimum(np.searchsorted(unique, posteriors.top_ids), len(unique) - 1)
        frame, rank = np.nonzero(unique[column] == posteriors.top_ids)
        values[frame, column[frame, rank]] = np.maximum(posteriors.top_log_probs[frame, rank], LOG_FLOOR)
    blank = posteriors.blank
    if silent is not None:
        quiet = np.where(silent[posteriors.top_ids], posteriors.top_log_probs, -np.inf)
        blank = np.logaddexp.reduce(np.column_stack([blank, quiet]), axis=1)
    return values[:, inverse.reshape(-1)], np.maximum(blank, LOG_FLOOR).astype(np.float32)
