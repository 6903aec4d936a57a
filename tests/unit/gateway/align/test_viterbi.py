"""The search of forced alignment against the trellis of CTC, walked one state and one frame at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gateway.align.viterbi import forced_align
from gateway.text.posteriors import TokenLogProbs


def trellis(emissions: TokenLogProbs, targets: list[int]) -> list[tuple[int, int]]:
    """First frame and end of each target's run; of equal moves the one that stays, then the shorter one."""
    states = [-1, *(state for target in targets for state in (target, -1))]
    ids = emissions.ids.tolist()

    def log_prob(frame: int, state: int) -> float:
        if state < 0:
            return float(emissions.blank[frame])
        return float(emissions.columns[frame, ids.index(state)])

    scores = [log_prob(0, state) if at < 2 else -math.inf for at, state in enumerate(states)]
    moves: list[list[int]] = []
    for frame in range(1, len(emissions.blank)):
        previous, scores = scores, []
        moves.append([])
        for at, state in enumerate(states):
            reach = 3 if state >= 0 and at > 1 and states[at - 2] != state else 2
            before = [previous[at - move] if at >= move else -math.inf for move in range(reach)]
            move = before.index(max(before))
            moves[-1].append(move)
            scores.append(before[move] + log_prob(frame, state))
    at = len(states) - 1 if scores[-1] > scores[-2] else len(states) - 2
    path = [at]
    for row in reversed(moves):
        at -= row[at]
        path.append(at)
    path.reverse()
    return [(path.index(state), len(path) - path[::-1].index(state)) for state in range(1, len(states), 2)]


@pytest.mark.parametrize("seed", range(40))
def test_spans_are_those_of_the_trellis_ties_included(seed: int) -> None:
    random = np.random.default_rng(seed)
    num_tokens = int(random.integers(1, 9))
    targets = random.integers(0, 3, num_tokens)
    num_frames = 2 * num_tokens + int(random.integers(0, 20))
    # Whole numbers from a small range: many paths are equally good, and no sum is rounded.
    columns = -random.integers(0, 4, (num_frames, 3)).astype(np.float32)
    blank = -random.integers(0, 3, num_frames).astype(np.float32)
    emissions = TokenLogProbs(np.arange(3), columns, blank)
    spans = forced_align(emissions, targets)
    assert list(zip(spans.starts, spans.ends, strict=True)) == trellis(emissions, targets.tolist())
    runs = zip(targets, spans.starts, spans.ends, strict=True)
    best = [columns[start:end, target].max() for target, start, end in runs]
    np.testing.assert_allclose(spans.scores, np.exp(best), rtol=1e-6)
