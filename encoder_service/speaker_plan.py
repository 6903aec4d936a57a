"""Which stretches of a segment the speaker network reads, and which of its frames make up each window."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FRAME_SECONDS = 0.02
"""The network gives one frame each 20 ms."""

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SpeakerConfig:
    """Seconds. One embedding for each `window`, windows about `shift` apart, evenly over a segment.

    The network reads each second once, in pieces of `piece` or of one window, so that all inputs have one of
    two shapes; windows take their statistics from its frames. On a CPU it reads no more than `batch` at
    once, what fits the cache.
    """

    window: float = 1.5
    shift: float = 0.75
    piece: float = 3.0
    batch: float = 48.0

    def __post_init__(self) -> None:
        if not 0 < self.shift <= self.window <= self.piece:
            raise ValueError("speaker windows need 0 < shift <= window <= piece")


@dataclass(frozen=True)
class Piece:
    """Samples [start, start + length) of a segment; shorter segments repeat until they fill it."""

    start: int
    length: int


def plan_pieces(samples: int, config: SpeakerConfig, sample_rate: int) -> tuple[Piece, ...]:
    """As few samples as cover the segment, long pieces first, starts spread evenly where they overlap."""
    short, long = round(config.window * sample_rate), round(config.piece * sample_rate)
    count, rest = divmod(samples, long)
    lengths = [long] * count
    if rest:
        fits = short >= rest or samples < long
        lengths += [short] * max(1, math.ceil(rest / short)) if fits else [long]
    surplus = max(0, sum(lengths) - samples)
    pieces, at = [], 0
    for index, length in enumerate(lengths):
        before = surplus * index // max(1, len(lengths) - 1)
        pieces.append(Piece(at - before, length))
        at += length
    return tuple(pieces)


@dataclass(frozen=True)
class Windows:
    """frames [n, w]: rows of the pieces' frames, one after the other; starts and ends [n] in seconds."""

    frames: IntArray
    starts: npt.NDArray[np.float64]
    ends: npt.NDArray[np.float64]


def plan_windows(
    samples: int, pieces: tuple[Piece, ...], frame_counts: list[int], config: SpeakerConfig, sample_rate: int
) -> Windows:
    """Windows of a segment over the frames of its pieces, of which there are `frame_counts`."""
    duration = samples / sample_rate
    timeline = _timeline(samples, pieces, frame_counts, sample_rate)
    width = min(len(timeline), round(config.window / FRAME_SECONDS))
    spare = len(timeline) - width
    count = 1 + math.ceil(spare * FRAME_SECONDS / config.shift - 1e-6)
    first = np.round(np.linspace(0, spare, count)).astype(np.int64)
    starts = np.asarray(first * FRAME_SECONDS, dtype=np.float64)
    ends = np.asarray(np.minimum(starts + config.window, duration), dtype=np.float64)
    ends[-1] = duration
    return Windows(timeline[first[:, None] + np.arange(width)], starts, ends)


def _timeline(samples: int, pieces: tuple[Piece, ...], frame_counts: list[int], sample_rate: int) -> IntArray:
    """For each 20 ms of the segment, the row among all frames of all pieces."""
    step = FRAME_SECONDS * sample_rate
    starts = np.array([piece.start for piece in pieces])
    # The last frames need a whole analysis window, so there are fewer than 20 ms steps in the segment.
    filled = round(starts[-1] / step) + frame_counts[-1]
    at = np.arange(max(2, min(filled, math.floor(samples / step)))) * step
    owner = np.clip(np.searchsorted(starts, at, side="right") - 1, 0, None)
    counts = np.array(frame_counts)
    within = np.round((at - starts[owner]) / step).astype(np.int64)
    offsets = np.concatenate(([0], np.cumsum(counts)[:-1]))
    rows: IntArray = offsets[owner] + np.clip(within, 0, counts[owner] - 1)
    return rows
