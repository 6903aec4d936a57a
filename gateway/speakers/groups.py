"""Groups of windows that are taken for one voice, and how alike two groups are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from gateway.speakers.types import FloatArray, LabelArray

Similarities = npt.NDArray[np.float64]

# Mean cosine of two windows of one voice in different sentences, measured on real and synthetic speech with
# CAM++ and 1.5 s windows, and how many pairs of windows that knowledge is worth.
_PRIOR_COSINE = 0.6
_PRIOR_PAIRS = 60.0


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """sums [k, d] of unit vectors, counts [k] of windows, seconds [k] of speech."""

    sums: Similarities
    counts: Similarities
    seconds: Similarities

    def __len__(self) -> int:
        return len(self.counts)

    @classmethod
    def of(cls, vectors: FloatArray, seconds: Similarities, labels: LabelArray) -> Groups:
        """Groups of unit vectors [n, d] by labels 0..k-1."""
        size = int(labels.max()) + 1 if len(labels) else 0
        sums = np.zeros((size, vectors.shape[1]))
        np.add.at(sums, labels, vectors)
        return cls(sums, _totals(labels, np.ones(len(labels)), size), _totals(labels, seconds, size))

    def merged(self, labels: LabelArray) -> Groups:
        """Groups of groups."""
        size = int(labels.max()) + 1
        sums = np.zeros((size, self.sums.shape[1]))
        np.add.at(sums, labels, self.sums)
        return Groups(sums, _totals(labels, self.counts, size), _totals(labels, self.seconds, size))

    def subset(self, rows: LabelArray) -> Groups:
        return Groups(self.sums[rows], self.counts[rows], self.seconds[rows])

    def joined(self, other: Groups) -> Groups:
        """Both, one after the other."""
        return Groups(
            np.concatenate((self.sums, other.sums)),
            np.concatenate((self.counts, other.counts)),
            np.concatenate((self.seconds, other.seconds)),
        )

    def centroids(self) -> FloatArray:
        """Unit vectors [k, d]."""
        return unit(self.sums.astype(np.float32))

    def coherence(self) -> Similarities:
        """[k] mean cosine between two windows of a group, drawn to the prior where windows are few."""
        return coherence(np.einsum("kd,kd->k", self.sums, self.sums), self.counts)


def _totals(labels: LabelArray, values: Similarities, size: int) -> Similarities:
    return np.asarray(np.bincount(labels, values, size), dtype=np.float64)


def likeness(first: Groups, second: Groups) -> Similarities:
    """[k, m]: mean cosine across two groups over the geometric mean of the cosines within them.

    Around 1 for two groups of one voice whatever the number and the length of their windows, which the
    cosine of their centroids is not: that one grows with the number of windows.
    """
    across = first.sums @ second.sums.T / np.outer(first.counts, second.counts)
    ratio: Similarities = across / np.sqrt(np.outer(first.coherence(), second.coherence()))
    return ratio


def coherence(norms: Similarities, counts: Similarities) -> Similarities:
    """As Groups.coherence, from the squared norms of the sums."""
    pairs = counts * (counts - 1)
    cosine = (norms - counts + _PRIOR_PAIRS * _PRIOR_COSINE) / (pairs + _PRIOR_PAIRS)
    return np.asarray(np.maximum(cosine, 0.1))


def unit(vectors: FloatArray) -> FloatArray:
    """Rows scaled to length 1; zero rows stay zero."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-12), dtype=np.float32)


def average_linkage(vectors: FloatArray, cosine: float) -> LabelArray:
    """Labels 0..k-1 of unit vectors [n, d]: merges while the mean cosine across is at least `cosine`.

    Memory and time grow with the square of n.
    """
    if len(vectors) < 2:
        return np.zeros(len(vectors), dtype=np.int64)
    # Of the same audio twice the cosine may round to more than 1; linkage takes no negative distance.
    distance = np.maximum(1.0 - (vectors @ vectors.T).astype(np.float64), 0.0)
    np.fill_diagonal(distance, 0.0)
    tree = linkage(squareform((distance + distance.T) / 2, checks=False), "average")
    return compact(fcluster(tree, 1.0 - cosine, "distance"))


def merge_alike(groups: Groups, threshold: float, at_least: int = 1) -> LabelArray:
    """Labels 0..k-1: joins the two groups most alike, while they reach `threshold` and more than `at_least`
    remain.
    """
    labels = np.arange(len(groups))
    dots, counts = groups.sums @ groups.sums.T, groups.counts.copy()
    while len(counts) > at_least:
        scale = 1.0 / (counts * np.sqrt(coherence(np.diagonal(dots), counts)))
        ratio = dots * scale[:, None] * scale
        np.fill_diagonal(ratio, -np.inf)
        first, second = sorted(int(at) for at in np.unravel_index(ratio.argmax(), ratio.shape))
        if ratio[first, second] < threshold:
            break
        # The sum of two groups is as far from every other sum as both together: no vector is needed again.
        dots[first] += dots[second]
        dots[:, first] += dots[:, second]
        dots = np.delete(np.delete(dots, second, axis=0), second, axis=1)
        counts[first] += counts[second]
        counts = np.delete(counts, second)
        labels[labels == second] = first
        labels[labels > second] -= 1
    return labels


def compact(labels: npt.NDArray[np.integer]) -> LabelArray:
    """The same partition with labels 0..k-1 in order of first appearance."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return np.asarray(rank[inverse], dtype=np.int64)
