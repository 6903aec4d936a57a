"""Log probabilities of the tokens to be aligned, taken from dense or compact CTC posteriors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gateway.align.viterbi import TokenSpans
from gateway.text.posteriors import CtcPosteriors, TokenLogProbs

FloatArray = NDArray[np.float32]

# Stands for zero probability: low enough to be avoided, finite so that a path always exists.
LOG_FLOOR = np.float32(-30.0)


def dense_emissions(log_probs: FloatArray, token_ids: NDArray[np.int64], blank_id: int) -> TokenLogProbs:
    """Of the distinct token ids, from log posteriors [T, vocab]."""
    ids = np.unique(token_ids)
    return TokenLogProbs(ids, np.take(log_probs, ids, axis=1), log_probs[:, blank_id])


def compact_emissions(posteriors: CtcPosteriors, token_ids: NDArray[np.int64]) -> TokenLogProbs:
    """Of the distinct token ids, from compact posteriors.

    A token outside a frame's best K gets its even share of the remaining mass.
    """
    top_k = posteriors.top_ids.shape[1]
    unseen = posteriors.remainder - np.log(max(1, posteriors.vocab_size - top_k - 1))
    if top_k:
        unseen = np.minimum(unseen, posteriors.top_log_probs[:, -1])
    ids = np.unique(token_ids)
    unseen = np.maximum(unseen, LOG_FLOOR).astype(np.float32)
    columns = np.repeat(unseen[:, None], len(ids), axis=1)
    column_of = np.full(posteriors.vocab_size, -1)
    column_of[ids] = np.arange(len(ids))
    column = column_of[posteriors.top_ids]
    frame, rank = np.nonzero(column >= 0)
    columns[frame, column[frame, rank]] = np.maximum(posteriors.top_log_probs[frame, rank], LOG_FLOOR)
    return TokenLogProbs(ids, columns, np.maximum(posteriors.blank, LOG_FLOOR))


# Where the network writes a token that nobody hears, such as punctuation, it counts as blank. `silent`
# [vocab] marks such tokens.


def compact_blank(posteriors: CtcPosteriors, silent: NDArray[np.bool_]) -> FloatArray:
    """Log probabilities [T] of saying nothing, from compact posteriors."""
    frame, rank = np.nonzero(silent[posteriors.top_ids])
    mass = np.bincount(frame, np.exp(posteriors.top_log_probs[frame, rank]), posteriors.num_frames)
    blank = np.maximum(posteriors.blank, LOG_FLOOR)
    silence: NDArray[np.float64] = np.log(np.exp(blank.astype(np.float64)) + mass)
    return silence.astype(np.float32)


def written_silent(posteriors: CtcPosteriors, silent: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Distinct ids of the silent tokens that matter: those that reach a thousandth at some frame."""
    likely = posteriors.top_ids[posteriors.top_log_probs > np.log(1e-3)]
    return np.unique(likely[silent[likely]]).astype(np.int64)


def exact_blank(exact: TokenLogProbs, silent: NDArray[np.bool_]) -> FloatArray:
    """Log probabilities [T] of saying nothing, from exact ones of the blank and of silent tokens."""
    quiet = exact.columns[:, silent[exact.ids]]
    return np.asarray(np.logaddexp.reduce(np.column_stack([exact.blank, quiet]), axis=1), dtype=np.float32)


def all_seen(posteriors: CtcPosteriors, targets: NDArray[np.int64], spans: TokenSpans) -> bool:
    """Whether every target is one of the best K at each frame of its span."""
    frames, target = spans.cells()
    return bool((posteriors.top_ids[frames] == targets[target][:, None]).any(axis=1).all())
