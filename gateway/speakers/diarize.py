"""Turns of a whole recording: windows clustered, flicker removed, neighbours of one speaker joined."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from gateway.speakers.clustering import ClusterConfig, cluster
from gateway.speakers.groups import Groups, Similarities, compact, unit
from gateway.speakers.types import FloatArray, LabelArray, SegmentEmbeddings, Turn


@dataclass(frozen=True)
class DiarizationConfig:
    """`switch_cost` is how much more alike, as a sum of cosines, the windows of a turn must be to another
    voice for the speaker to change within a segment.
    """

    clustering: ClusterConfig = field(default_factory=ClusterConfig)
    switch_cost: float = 0.2


@dataclass(frozen=True, slots=True, eq=False)
class Diarization:
    """turns in order of their segments, speakers numbered by first appearance; labels [n] per window and
    segment.
    """

    turns: tuple[Turn, ...]
    labels: tuple[LabelArray, ...]

    @property
    def num_speakers(self) -> int:
        return 1 + max((turn.speaker for turn in self.turns), default=-1)


def diarize(
    segments: Sequence[SegmentEmbeddings],
    num_speakers: int | None = None,
    config: DiarizationConfig | None = None,
) -> Diarization:
    """Who speaks when in segments in order of time; the number of speakers is found unless given.

    Segments of several channels, which may overlap, are clustered together: somebody who is heard in two of
    them is one speaker.
    """
    config = config or DiarizationConfig()
    counts = [len(segment.embeddings) for segment in segments]
    if not sum(counts):
        return Diarization((), tuple(np.zeros(0, dtype=np.int64) for _ in segments))
    embeddings = np.concatenate([segment.embeddings for segment in segments if len(segment.embeddings)])
    seconds = np.concatenate([segment.seconds for segment in segments if len(segment.embeddings)])
    labels = cluster(embeddings, seconds, num_speakers, config.clustering)
    parts = np.split(_steady(embeddings, seconds, labels, counts, config.switch_cost), np.cumsum(counts)[:-1])
    turns = (turn for segment, part in zip(segments, parts, strict=True) for turn in turns_of(segment, part))
    return Diarization(tuple(turns), tuple(parts))


def turns_of(segment: SegmentEmbeddings, labels: LabelArray) -> list[Turn]:
    """The turns of one segment, given the label of each of its windows; none where there is no window."""
    turns: list[Turn] = []
    if not len(labels):
        return turns
    for label, (start, end) in zip(
        labels.tolist(), itertools.pairwise(segment.borders.tolist()), strict=True
    ):
        if turns and turns[-1].speaker == label:
            turns[-1] = replace(turns[-1], end=end)
        else:
            turns.append(Turn(label, start, end, segment.channel))
    return turns


def _steady(
    embeddings: FloatArray, seconds: Similarities, labels: LabelArray, counts: list[int], cost: float
) -> LabelArray:
    """Labels with the best sum of cosines less the cost of each change, unless a speaker would vanish."""
    vectors = unit(embeddings)
    scores = vectors @ Groups.of(vectors, seconds, labels).centroids().T
    parts = np.split(scores, np.cumsum(counts)[:-1])
    smooth = np.concatenate([steady_path(part, cost) for part in parts])
    vanished = len(np.unique(smooth)) < len(np.unique(labels))
    return labels if vanished else compact(smooth)


def steady_path(scores: FloatArray, cost: float) -> LabelArray:
    """Viterbi path [n] through scores [n, k] where each change of the column costs `cost`."""
    if not len(scores):
        return np.zeros(0, dtype=np.int64)
    best, back = scores[0].astype(np.float64), np.zeros(scores.shape, dtype=np.int64)
    columns = np.arange(scores.shape[1])
    for row in range(1, len(scores)):
        leader = int(best.argmax())
        changes = best[leader] - cost > best
        back[row] = np.where(changes, leader, columns)
        best = np.where(changes, best[leader] - cost, best) + scores[row]
    path = np.empty(len(scores), dtype=np.int64)
    path[-1] = int(best.argmax())
    for row in range(len(scores) - 1, 0, -1):
        path[row - 1] = back[row, path[row]]
    return path
