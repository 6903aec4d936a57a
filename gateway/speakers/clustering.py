"""Windows to speakers: how many there are, and which window is whose. Deterministic, hours in bounded memory.

Windows are grouped in blocks by average linkage, the groups of all blocks by how alike they are, and every
window then goes to the nearest of the voices that remain. Cost is linear in the number of windows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gateway.speakers.groups import Groups, Similarities, average_linkage, compact, merge_alike, unit
from gateway.speakers.types import FloatArray, LabelArray


@dataclass(frozen=True)
class ClusterConfig:
    """`cosine` ends the first grouping within a block of `block` windows, `likeness` says when two groups are
    one voice (see groups.likeness). A voice is heard for at least `min_seconds` and `min_share` of all
    speech, unless its number is given; `max_speakers` bounds how many are found.
    """

    cosine: float = 0.5
    likeness: float = 0.68
    min_seconds: float = 2.5
    min_share: float = 0.002
    max_speakers: int = 32
    block: int = 1500
    rounds: int = 4

    def floor(self, seconds: Similarities) -> float:
        """Seconds that a group needs in order to be a voice; the largest one always is."""
        if not len(seconds):
            return 0.0
        wanted = max(self.min_seconds, self.min_share * float(seconds.sum()))
        return min(wanted, float(seconds.max()))


def cluster(
    embeddings: FloatArray,
    seconds: Similarities,
    num_speakers: int | None = None,
    config: ClusterConfig | None = None,
) -> LabelArray:
    """Labels [n], 0..k-1 by first appearance, of embeddings [n, d] that stand for `seconds` [n] of speech.

    With `num_speakers` exactly so many come out wherever there are as many windows.
    """
    config = config or ClusterConfig()
    if not len(embeddings):
        return np.zeros(0, dtype=np.int64)
    vectors = unit(embeddings)
    groups = _grouped(vectors, seconds, config)
    voices = _found(groups, config) if num_speakers is None else _given(groups, num_speakers, config)
    if num_speakers is not None and len(voices) < num_speakers:
        voices = _split(vectors, seconds, num_speakers)
    return compact(_assign(vectors, seconds, voices, config, fixed=num_speakers is not None))


def _grouped(vectors: FloatArray, seconds: Similarities, config: ClusterConfig) -> Groups:
    """Groups of all blocks, those alike within a block already joined."""
    found: Groups | None = None
    for first in range(0, len(vectors), config.block):
        part = slice(first, first + config.block)
        fine = Groups.of(vectors[part], seconds[part], average_linkage(vectors[part], config.cosine))
        coarse = fine.merged(merge_alike(fine, config.likeness))
        found = coarse if found is None else found.joined(coarse)
    assert found is not None
    return found


def _found(groups: Groups, config: ClusterConfig) -> Groups:
    """The voices: groups alike are joined, and what is then too small for a voice is left out."""
    joined = groups.merged(merge_alike(groups, config.likeness))
    voices = joined.subset(np.flatnonzero(joined.seconds >= config.floor(joined.seconds)))
    if len(voices) > config.max_speakers:
        voices = voices.merged(merge_alike(voices, -np.inf, config.max_speakers))
    return voices


def _given(groups: Groups, number: int, config: ClusterConfig) -> Groups:
    """`number` voices where there are as many groups: the stricter the joining, the more there are."""
    voices = groups
    for likeness in (config.likeness, 0.8, 0.95, np.inf):
        joined = groups.merged(merge_alike(groups, likeness, number))
        for floor in (config.floor(joined.seconds), 1.0, 0.0):
            voices = joined.subset(np.flatnonzero(joined.seconds >= floor))
            if len(voices) >= number:
                return voices.merged(merge_alike(voices, -np.inf, number))
    return voices


def _split(vectors: FloatArray, seconds: Similarities, number: int) -> Groups:
    """As many voices as asked for out of too few: the windows farthest from those chosen before are seeds."""
    seeds = [int(np.argmax(vectors @ vectors.sum(0)))]
    nearest = vectors @ vectors[seeds[0]]
    while len(seeds) < min(number, len(vectors)):
        nearest[seeds] = np.inf
        seeds.append(int(np.argmin(nearest)))
        nearest = np.maximum(nearest, vectors @ vectors[seeds[-1]])
    labels = (vectors @ vectors[seeds].T).argmax(1)
    labels[seeds] = np.arange(len(seeds))
    return Groups.of(vectors, seconds, np.asarray(labels, dtype=np.int64))


def _assign(
    vectors: FloatArray, seconds: Similarities, voices: Groups, config: ClusterConfig, fixed: bool
) -> LabelArray:
    """Every window to the nearest voice, voices moved to their windows, a few times over."""
    labels = np.zeros(len(vectors), dtype=np.int64)
    for _ in range(config.rounds):
        labels = np.asarray((vectors @ voices.centroids().T).argmax(1), dtype=np.int64)
        if len(np.unique(labels)) < len(voices):
            if fixed:
                return labels
            labels = compact(labels)
        voices = Groups.of(vectors, seconds, labels)
        if not fixed:
            step = merge_alike(voices, config.likeness)
            labels, voices = step[labels], voices.merged(step)
    return labels
