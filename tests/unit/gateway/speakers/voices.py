"""Synthetic voices: embeddings that are as alike, within and across speakers, as CAM++'s are."""

from __future__ import annotations

import numpy as np

from gateway.speakers.types import FloatArray, LabelArray, SegmentEmbeddings

SIZE = 192
_SAME, _OTHER = 0.6, 0.08


def speakers(count: int, seed: int = 0) -> FloatArray:
    """Unit vectors [count, 192] with a mean cosine of about 0.08 / 0.6 to each other."""
    rng = np.random.default_rng(seed)
    common, own = rng.normal(size=SIZE), rng.normal(size=(count, SIZE))
    share = _OTHER / _SAME
    vectors = np.sqrt(share) * common + np.sqrt(1 - share) * own
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def windows(voices: FloatArray, labels: LabelArray, seed: int = 1) -> FloatArray:
    """One embedding [n, 192] for each label, mean cosine 0.6 within a voice, lengths all different."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(len(labels), SIZE)).astype(np.float32)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    mixed = np.sqrt(_SAME) * voices[labels] + np.sqrt(1 - _SAME) * noise
    return np.asarray(mixed * rng.uniform(1, 9, size=(len(labels), 1)), dtype=np.float32)


def sentence(embeddings: FloatArray, start: float, shift: float = 0.75) -> SegmentEmbeddings:
    """A segment of 1.5 s windows every `shift` seconds."""
    starts = np.asarray(start + shift * np.arange(len(embeddings)), dtype=np.float64)
    return SegmentEmbeddings(start, float(starts[-1]) + 1.5, embeddings, starts, starts + 1.5)


def conversation(
    voices: FloatArray, sentences: int, seed: int = 2, lengths: tuple[int, int] = (3, 12)
) -> tuple[list[SegmentEmbeddings], list[int]]:
    """Sentences by random speakers, each of whom speaks, and who spoke."""
    rng = np.random.default_rng(seed)
    who = [*range(len(voices)), *rng.integers(len(voices), size=max(0, sentences - len(voices))).tolist()]
    parts, start = [], 0.5
    for index, speaker in enumerate(who):
        count = int(rng.integers(*lengths))
        labels = np.full(count, speaker, dtype=np.int64)
        parts.append(sentence(windows(voices, labels, seed=seed * 100_000 + index), start))
        start = parts[-1].end + 0.5
    return parts, who
