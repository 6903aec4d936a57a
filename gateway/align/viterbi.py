"""CTC forced alignment: the best path of a known token sequence through frame posteriors.

Paths are those of Graves et al. 2006 (blank, t1, blank, t2, ... blank), and ties break as in torchaudio's
forced_align, so that both give the same spans. Scores are relative to the path of blanks alone: blanks are
free, and a token gains its log probability less the blank's. That leaves two scores a token, and three
operations on all tokens a frame:

    held[t, i]      the best path whose frame t - 1 is token i's
    done[t, i + 1]  the best path that has tokens 0 to i behind it after t frames

The blank that must lie between two equal tokens is a token of its own, which gains nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.text.posteriors import TokenLogProbs

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]


class AlignmentError(ValueError):
    """The tokens cannot be aligned to these frames."""


@dataclass(frozen=True, slots=True)
class TokenSpans:
    """Frames [starts, ends) of L tokens, int64 [L] each, and the best probability each reaches there, [L]."""

    starts: IntArray
    ends: IntArray
    scores: NDArray[np.float64]

    def cells(self) -> tuple[IntArray, IntArray]:
        """Every frame of every span, and the index of the token whose span it is."""
        return _cells(self.starts, self.ends)


def forced_align(emissions: TokenLogProbs, targets: IntArray) -> TokenSpans:
    """Spans of the targets int64 [L], in order; each of them is one of the emissions' tokens.

    Raises AlignmentError when there are fewer frames than the tokens need, or no tokens.
    """
    num_frames, num_tokens = len(emissions.blank), len(targets)
    again = np.flatnonzero(targets[1:] == targets[:-1]) + 1
    needed = num_tokens + len(again)
    if num_tokens == 0 or num_frames < needed:
        raise AlignmentError(f"{num_tokens} tokens need {needed} frames, there are {num_frames}")
    columns = np.searchsorted(emissions.ids, targets)
    starts, ends = _best_path(_gains(emissions, columns, again))
    spoken = np.insert(np.ones(num_tokens, dtype=np.bool_), again, False)
    starts, ends = starts[spoken], ends[spoken]
    return TokenSpans(starts, ends, _best_scores(emissions, columns, starts, ends))


def _gains(emissions: TokenLogProbs, columns: IntArray, again: IntArray) -> FloatArray:
    """[T, L + len(again)]: what each token gains over blank, with a blank before the tokens at `again`."""
    num_frames, num_ids = emissions.columns.shape
    relative = np.zeros((num_frames, num_ids + 1), dtype=np.float32)
    np.subtract(emissions.columns, emissions.blank[:, None], out=relative[:, :num_ids])
    return np.take(relative, np.insert(columns, again, num_ids), axis=1)


def _best_path(gains: FloatArray) -> tuple[IntArray, IntArray]:
    """First frames and ends of the tokens' runs, int64 [L] each, from gains [T, L]."""
    num_frames, num_tokens = gains.shape
    held = np.empty((num_frames + 1, num_tokens), dtype=np.float32)
    done = np.empty((num_frames + 1, num_tokens + 1), dtype=np.float32)
    held[0] = done[0] = -np.inf
    done[:, 0] = 0.0
    stay, leave = held[0], done[0, 1:]
    maximum, add = np.maximum, np.add
    for gain, enter, new, left in zip(gains, done[:-1, :-1], held[1:], done[1:, 1:], strict=True):
        maximum(stay, enter, new)
        add(new, gain, new)
        maximum(leave, new, left)
        stay, leave = new, left
    return _trace_back(held, done)


def _trace_back(held: FloatArray, done: FloatArray) -> tuple[IntArray, IntArray]:
    """The runs of the best path; of equally good ones, those that begin and end early.

    Only the last token, where it may as well end the segment, does.
    """
    frame, last, starts, ends = len(held) - 1, held.shape[1] - 1, [], []
    holding, behind = held.item, done.item
    for token in range(last, -1, -1):
        score = behind(frame, token + 1)
        if token < last or holding(frame, token) < score:
            while behind(frame - 1, token + 1) == score:
                frame -= 1
        ends.append(frame)
        frame -= 1
        while holding(frame, token) >= behind(frame, token):
            frame -= 1
        starts.append(frame)
    return np.array(starts[::-1]), np.array(ends[::-1])


def _best_scores(
    emissions: TokenLogProbs, columns: IntArray, starts: IntArray, ends: IntArray
) -> NDArray[np.float64]:
    """Highest probability of each token within its run, [L]."""
    frames, token = _cells(starts, ends)
    first = np.searchsorted(token, np.arange(len(starts)))
    best: FloatArray = np.maximum.reduceat(emissions.columns[frames, columns[token]], first)
    return np.exp(best.astype(np.float64))


def _cells(starts: IntArray, ends: IntArray) -> tuple[IntArray, IntArray]:
    lengths = ends - starts
    token = np.repeat(np.arange(len(starts)), lengths)
    offsets = np.cumsum(lengths) - lengths
    return np.arange(len(token)) + (starts - offsets)[token], token
