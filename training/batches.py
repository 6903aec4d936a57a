"""Which utterances make a batch: length buckets of fixed shape, so that every bucket is one CUDA graph.

A batch travels to the device as one small integer matrix of (start, length)
pairs; the device gathers the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.bank import FeatureBank
from training.tables import PLAIN_PROMPTS, PROMPTS, TokenTables

LFR = 6


@dataclass(frozen=True)
class Bucket:
    """Fixed sizes of a batch: `frames` after stacking, room for CTC targets, answer and whole prompt."""

    frames: int
    rows: int
    slots: int
    ctc: int
    answer: int
    prompt: int

    @property
    def columns(self) -> int:
        return 2 * ((2 * self.slots - 1) + self.slots + 1 + self.slots)


def make_bucket(frames: int, budget: int, slots: int, downsample: int) -> Bucket:
    rows = max(4, budget // frames // 4 * 4)
    answer = 8 + int(frames * 0.36)
    prompt = -(-(frames // downsample + answer + 44) // 8) * 8
    return Bucket(frames, rows, slots, 12 + int(frames * 0.6), answer, prompt)


SINGLE_FRAMES = (24, 32, 40, 48, 64, 80, 112, 160)
JOINED_FRAMES = ((256, 5), (448, 9))
JOINABLE_FRAMES = 112


@dataclass(frozen=True)
class Mix:
    """What the sampler draws: conditions' weights, longest single utterance, share of joined batches."""

    conditions: tuple[float, ...]
    longest: int
    joined: float


@dataclass(frozen=True)
class Batch:
    """`spec` int64 [rows, columns]: feature, CTC, prefix and answer segments. Lengths for the CTC loss."""

    bucket: Bucket
    spec: np.ndarray
    frames: np.ndarray
    targets: np.ndarray
    seconds: float


class Sampler:
    """Draws batches without end from a bank and its tables."""

    def __init__(
        self,
        bank: FeatureBank,
        tables: TokenTables,
        budget: int,
        downsample: int,
        seed: int,
        singles: tuple[int, ...] = SINGLE_FRAMES,
    ) -> None:
        self.bank, self.tables, self.downsample = bank, tables, downsample
        self.rng = np.random.default_rng(seed)
        self.singles = [make_bucket(f, budget, 1, downsample) for f in singles]
        self.joined = [make_bucket(f, budget, s, downsample) for f, s in JOINED_FRAMES]
        self._members = self._assign()
        short = [m for b, m in zip(self.singles, self._members, strict=True) if b.frames <= JOINABLE_FRAMES]
        self._joinable = np.unique(np.concatenate(short)[:, 0])

    def buckets(self) -> list[Bucket]:
        """Every shape that can be drawn."""
        return [b for b, m in zip(self.singles, self._members, strict=True) if len(m)] + self.joined

    def _assign(self) -> list[np.ndarray]:
        """Per single bucket the (utterance, condition) pairs [M, 2] that fit it and no smaller one."""
        frames = -(-self.bank.count // LFR)
        ctc = (self.tables.ctc.length[:, :1] + self.tables.ctc_repeats[:, :1]).repeat(frames.shape[1], 1)
        answer = self.tables.answer.length[:, :, 0].max(axis=1)[:, None] + 1
        left = np.ones(frames.shape, dtype=bool)
        members = []
        for b in self.singles:
            fits = left & (frames <= b.frames) & (ctc <= frames) & (ctc <= b.ctc) & (answer <= b.answer)
            left &= ~fits
            members.append(np.argwhere(fits))
        return members

    def draw(self, mix: Mix) -> Batch:
        if self.rng.random() < mix.joined:
            return self._join(self.joined[self.rng.integers(len(self.joined))], mix)
        sizes = np.array(
            [
                len(m) / b.rows if b.frames <= mix.longest else 0.0
                for b, m in zip(self.singles, self._members, strict=True)
            ]
        )
        which = int(self.rng.choice(len(self.singles), p=sizes / sizes.sum()))
        return self._single(self.singles[which], self._members[which], mix)

    def _single(self, bucket: Bucket, members: np.ndarray, mix: Mix) -> Batch:
        """Rejection by condition: members hold every condition alike."""
        pick = members[self.rng.integers(len(members), size=bucket.rows * 8)]
        weights = np.array(mix.conditions)
        keep = self.rng.random(len(pick)) < (weights / weights.max())[pick[:, 1]]
        pick = np.concatenate([pick[keep], pick])[: bucket.rows]
        utts, conditions = pick[:, :1], pick[:, 1]
        return self._pack(bucket, utts, conditions, np.ones_like(utts, dtype=bool))

    def _join(self, bucket: Bucket, mix: Mix) -> Batch:
        """Rows of several utterances with pauses, as many as fit."""
        weights = np.array(mix.conditions) / sum(mix.conditions)
        conditions = self.rng.choice(len(weights), size=bucket.rows, p=weights)
        utts = self.rng.choice(self._joinable, size=(bucket.rows, bucket.slots))
        frames = np.cumsum(self.bank.count[utts, conditions[:, None]] + 64, axis=1)
        ctc = np.cumsum(self.tables.ctc.length[utts, 1] + self.tables.ctc_repeats[utts, 1], axis=1)
        answer = np.cumsum(self.tables.answer.length[utts, :, 1].max(axis=2), axis=1)
        used = (frames <= bucket.frames * LFR) & (ctc <= bucket.ctc) & (answer < bucket.answer)
        used &= ctc * LFR <= frames
        used[:, 0] = True
        return self._pack(bucket, utts, conditions, np.logical_and.accumulate(used, axis=1))

    def _pack(
        self, bucket: Bucket, utts: np.ndarray, conditions: np.ndarray, used: np.ndarray, biased: float = 0.4
    ) -> Batch:
        rows, slots = utts.shape
        t, first = self.tables, np.arange(slots)[None] > 0
        spaced = first.astype(np.int64).repeat(rows, 0)
        pauses = self.rng.integers(12, 64, size=(rows, slots - 1))
        pause_at = self.rng.choice(self.bank.pause_start, size=(rows, slots - 1))
        feat = np.zeros((rows, 2 * slots - 1, 2), dtype=np.int64)
        feat[:, ::2, 0] = self.bank.start[utts, conditions[:, None]]
        feat[:, ::2, 1] = self.bank.count[utts, conditions[:, None]] * used
        feat[:, 1::2, 0] = pause_at
        feat[:, 1::2, 1] = pauses * used[:, 1:]
        ctc = np.stack([t.ctc.start[utts, spaced], t.ctc.length[utts, spaced] * used], axis=2)
        frames = -(-feat[:, :, 1].sum(axis=1) // LFR)
        prompts = self._prompts(bucket, utts, used, frames, biased)
        answer = np.stack(
            [t.answer.start[utts, prompts, spaced], t.answer.length[utts, prompts, spaced] * used], axis=2
        )
        lead, kind = utts[:, 0], prompts[:, 0]
        prefix = np.stack([t.prefix.start[lead, kind], t.prefix.length[lead, kind]], axis=1)[:, None]
        spec = np.concatenate([feat, ctc, prefix, answer], axis=1).reshape(rows, -1)
        seconds = float(feat[:, :, 1].sum()) * 0.01
        return Batch(bucket, spec, frames, ctc[:, :, 1].sum(axis=1), seconds)

    def _prompts(
        self, bucket: Bucket, utts: np.ndarray, used: np.ndarray, frames: np.ndarray, biased: float
    ) -> np.ndarray:
        """A prompt per row (its first slot leads), with hotwords in a share `biased` where they fit."""
        rows, slots = utts.shape
        listed = self.rng.random(rows) < biased
        kind = np.where(
            listed, self.rng.integers(PLAIN_PROMPTS, PROMPTS, rows), self.rng.integers(0, PLAIN_PROMPTS, rows)
        )
        prompts = np.zeros((rows, slots), dtype=np.int64)
        prompts[:, 0] = kind
        t = self.tables
        answer = (t.answer.length[utts, prompts, 1] * used).sum(axis=1)
        need = t.prefix.length[utts[:, 0], kind] - (-frames // self.downsample) + t.suffix[1] + answer + 1
        prompts[:, 0] = np.where(need <= bucket.prompt, kind, 0)
        return prompts

    def sweep(self, condition: int = 0) -> list[tuple[Batch, np.ndarray]]:
        """Every utterance once in one condition, without hotwords: batches and the utterance of each row."""
        out = []
        for bucket, members in zip(self.singles, self._members, strict=True):
            utts = members[members[:, 1] == condition][:, 0]
            for i in range(0, len(utts), bucket.rows):
                part = utts[i : i + bucket.rows]
                padded = np.resize(part, bucket.rows)[:, None]
                conditions = np.full(bucket.rows, condition)
                batch = self._pack(bucket, padded, conditions, np.ones_like(padded, dtype=bool), biased=0.0)
                out.append((batch, part))
        return out
