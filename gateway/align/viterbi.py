"""CTC forced alignment: the best path of a known token sequence through frame posteriors.

Follows Graves et al. 2006 (states blank, t1, blank, t2, ... blank) and breaks ties as torchaudio's
forced_align does, so that both give the same spans.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]


class AlignmentError(ValueError):
    """The tokens cannot be aligned to these frames."""


@dataclass(frozen=True, slots=True)
class TokenSpan:
    """Frames [start, end) of one token, and the best probability it reaches there."""

    start: int
    end: int
    score: float


def forced_align(tokens: FloatArray, blank: FloatArray, repeats: BoolArray) -> list[TokenSpan]:
    """Spans of L tokens over T frames.

    tokens float32 [T, L]: log probability of each target token at each frame; blank float32 [T];
    repeats [L]: whether a token equals the one before it, so that a blank must lie between them.
    Raises AlignmentError when there are fewer frames than the tokens need.
    """
    num_frames, num_tokens = tokens.shape
    if num_tokens == 0:
        return []
    needed = num_tokens + int(repeats[1:].sum())
    if num_frames < needed:
        raise AlignmentError(f"{num_tokens} tokens need {needed} frames, there are {num_frames}")
    path = _best_path(tokens, blank, repeats)
    spans = []
    for index in range(num_tokens):
        # States ascend along the path, so each token's frames are one run.
        start, end = np.searchsorted(path, [2 * index + 1, 2 * index + 2]).tolist()
        spans.append(TokenSpan(start, end, float(np.exp(tokens[start:end, index].max()))))
    return spans


def _best_path(tokens: FloatArray, blank: FloatArray, repeats: BoolArray) -> NDArray[np.int64]:
    """State at each frame, int64 [T]: 2i + 1 is token i, even states are blanks."""
    num_frames, num_tokens = tokens.shape
    num_states = 2 * num_tokens + 1
    emissions = np.empty((num_frames, num_states), dtype=np.float32)
    emissions[:, 0::2] = blank[:, None]
    emissions[:, 1::2] = tokens
    # A token may follow the token before it directly unless both are the same.
    skip = np.full(num_states, -np.inf, dtype=np.float32)
    skip[3::2] = np.where(repeats[1:], -np.inf, 0.0)

    # Two states of padding in front stand for "before the first state".
    padded = np.full(num_states + 2, -np.inf, dtype=np.float32)
    stay, step, jump = padded[2:], padded[1:-1], padded[:-2]
    stay[:2] = emissions[0, :2]
    stepped = np.zeros((num_frames, num_states), dtype=np.bool_)
    jumped = np.zeros((num_frames, num_states), dtype=np.bool_)
    best, jump_score = np.empty_like(skip), np.empty_like(skip)
    for frame in range(1, num_frames):
        np.greater(step, stay, out=stepped[frame])
        np.maximum(step, stay, out=best)
        np.add(jump, skip, out=jump_score)
        np.greater(jump_score, best, out=jumped[frame])
        np.maximum(best, jump_score, out=best)
        np.add(best, emissions[frame], out=stay)

    path = np.empty(num_frames, dtype=np.int64)
    state = num_states - 1 if stay[-1] > stay[-2] else num_states - 2
    for frame in range(num_frames - 1, -1, -1):
        path[frame] = state
        state -= 2 if jumped[frame, state] else int(stepped[frame, state])
    return path
