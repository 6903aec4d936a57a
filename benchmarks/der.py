"""Diarization error rate, exactly: time is cut at every boundary, speakers are mapped optimally."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

_EPSILON = 1e-9


class SpokenTurn(NamedTuple):
    """A speaker by any name, from start to end in seconds."""

    speaker: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class DiarizationError:
    """Seconds of scored reference speech, and of each kind of error; numbers of speakers."""

    scored: float
    missed: float
    false_alarm: float
    confused: float
    reference_speakers: int
    found_speakers: int

    @property
    def rate(self) -> float:
        return (self.missed + self.false_alarm + self.confused) / self.scored


def diarization_error(
    reference: Sequence[SpokenTurn], found: Sequence[SpokenTurn], collar: float = 0.25
) -> DiarizationError:
    """Errors of `found`; `collar` seconds on both sides of every reference boundary do not count."""
    names = sorted({turn.speaker for turn in reference})
    others = sorted({turn.speaker for turn in found})
    edges = np.array(sorted({time for turn in reference for time in (turn.start, turn.end)}))
    cuts = {float(edge + side) for edge in edges for side in (-collar, collar)}
    cuts |= {time for turn in (*reference, *found) for time in (turn.start, turn.end)}
    shared = np.zeros((len(names), len(others)))
    scored = missed = false_alarm = both = 0.0
    for start, end in itertools.pairwise(sorted(cuts)):
        middle, seconds = (start + end) / 2, end - start
        if seconds < _EPSILON or (len(edges) and np.abs(edges - middle).min() < collar):
            continue
        true, heard = _active(reference, middle), _active(found, middle)
        scored += seconds * len(true)
        missed += seconds * max(0, len(true) - len(heard))
        false_alarm += seconds * max(0, len(heard) - len(true))
        both += seconds * min(len(true), len(heard))
        for name, other in itertools.product(true, heard):
            shared[names.index(name), others.index(other)] += seconds
    rows, columns = linear_sum_assignment(-shared)
    confused = both - float(shared[rows, columns].sum())
    return DiarizationError(scored, missed, false_alarm, confused, len(names), len(others))


def _active(turns: Sequence[SpokenTurn], time: float) -> set[str]:
    return {turn.speaker for turn in turns if turn.start <= time < turn.end}
