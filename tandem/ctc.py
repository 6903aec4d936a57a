"""What CTC's best path says, for the tiers that read it: the path, and the bytes its tokens stand for."""

from __future__ import annotations

import base64
import binascii

import numpy as np
from numpy.typing import NDArray


class CtcVocabularyError(ValueError):
    """The vocabulary file does not parse, or does not fit the size of the CTC head."""


def parse_ranks(data: bytes) -> dict[bytes, int]:
    """Byte strings to ids, from the lines "base64 rank" of a .tiktoken file."""
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(data.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise CtcVocabularyError(f"line {number} is not 'base64 rank'") from error
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise CtcVocabularyError("ranks are not 0..n-1")
    return ranks


def best_path(
    top_ids: NDArray[np.int32], top_log_probs: NDArray[np.float32], blank: NDArray[np.float32], blank_id: int
) -> tuple[list[int], list[int]]:
    """Token ids of the best path through compact posteriors, and the frames where they begin.

    Repeats are collapsed and blanks dropped. top_ids and top_log_probs [T, K] are the tokens besides the
    blank, likeliest first; blank [T] is its log-probability.
    """
    if top_ids.size == 0:
        return [], []
    best = np.where(blank >= top_log_probs[:, 0], blank_id, top_ids[:, 0])
    changed = np.concatenate(([True], best[1:] != best[:-1]))
    frames = np.flatnonzero(changed & (best != blank_id))
    return best[frames].tolist(), frames.tolist()
