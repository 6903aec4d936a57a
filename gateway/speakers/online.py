"""Speakers of a live session: a provisional label for each sentence, all clustered again at the end.

The provisional part keeps one centroid for each voice, so a sentence costs the same after hours. The history
for the end is bounded too: old sentences shrink to one vector for each of their turns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from scipy.optimize import linear_sum_assignment

from gateway.audio.types import Samples
from gateway.speakers.diarize import DiarizationConfig, diarize, turns_of
from gateway.speakers.groups import Groups, average_linkage, likeness, merge_alike, unit
from gateway.speakers.types import LabelArray, SegmentEmbeddings, Turn


@dataclass(frozen=True)
class OnlineConfig:
    """`match` is how alike (groups.likeness) a sentence must be to a voice heard before; a new voice needs
    `min_seconds` of speech. `history_windows` bounds what the final clustering sees in full.
    """

    match: float = 0.68
    min_seconds: float = 1.5
    max_speakers: int = 32
    history_windows: int = 20_000
    diarization: DiarizationConfig = field(default_factory=DiarizationConfig)


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """The sentences of a session up to a moment, and the provisional labels [n] of the windows of each.

    Nothing changes it, so it may be looked at in another thread while the session goes on.
    """

    sentences: tuple[SegmentEmbeddings, ...]
    labels: tuple[LabelArray, ...]

    def settle(self, num_speakers: int | None, config: DiarizationConfig) -> tuple[tuple[Turn, ...], ...]:
        """Turns of every sentence after clustering all of them. See OnlineTracker.finish."""
        found = diarize(self.sentences, num_speakers, config)
        names = self._names(found.labels)
        return tuple(
            tuple(turns_of(sentence, names[labels]))
            for sentence, labels in zip(self.sentences, found.labels, strict=True)
        )

    def _names(self, found: tuple[LabelArray, ...]) -> LabelArray:
        """[k] provisional numbers for the clusters found at the end, by most windows in common."""
        final = np.concatenate([*found, np.zeros(0, dtype=np.int64)])
        before = np.concatenate([*self.labels, np.zeros(0, dtype=np.int64)])
        shared = np.zeros((int(final.max(initial=-1)) + 1, int(before.max(initial=-1)) + 1))
        np.add.at(shared, (final, before), 1.0)
        names = np.full(shared.shape[0], -1, dtype=np.int64)
        rows, columns = linear_sum_assignment(-shared)
        useful = shared[rows, columns] > 0
        names[rows[useful]] = columns[useful]
        free = shared.shape[1] + np.arange(len(names))
        names[names < 0] = free[: int((names < 0).sum())]
        return names


class OnlineTracker:
    """Add sentences in order of time; each gets labels at once, `finish` may change them.

    `num_speakers`, where known, bounds the voices and is what the final clustering finds.
    """

    def __init__(self, num_speakers: int | None = None, config: OnlineConfig | None = None) -> None:
        self._config = config or OnlineConfig()
        self._num_speakers = num_speakers
        self._voices: Groups | None = None
        self._history: list[SegmentEmbeddings] = []
        self._labels: list[LabelArray] = []
        self._windows = 0
        self._shrunk = 0
        self._last = 0

    def add(self, sentence: SegmentEmbeddings) -> tuple[Turn, ...]:
        """The turns of a sentence by the voices heard so far; without windows it is the last speaker's."""
        if not len(sentence.embeddings):
            self._remember(sentence, np.zeros(0, dtype=np.int64))
            return (Turn(self._last, sentence.start, sentence.end),)
        groups, within = self._groups(sentence)
        labels = np.array([self._place(groups.subset(np.array([row]))) for row in range(len(groups))])[within]
        self._remember(sentence, labels)
        self._last = int(labels[-1])
        return tuple(turns_of(sentence, labels))

    def finish(self) -> tuple[tuple[Turn, ...], ...]:
        """Turns of every sentence after clustering the whole session.

        Speakers keep the numbers under which they were heard most; a voice found only now gets the next free
        number.
        """
        return self.finishing()()

    def finishing(self) -> Callable[[], tuple[tuple[Turn, ...], ...]]:
        """The work of `finish` for what has been added by now, to be done in any thread."""
        history = History(tuple(self._history), tuple(self._labels))
        return partial(history.settle, self._num_speakers, self._config.diarization)

    def _groups(self, sentence: SegmentEmbeddings) -> tuple[Groups, LabelArray]:
        """The voices within a sentence, those too short joined to the one most alike."""
        clustering = self._config.diarization.clustering
        vectors = unit(sentence.embeddings)
        labels = average_linkage(vectors, clustering.cosine)
        groups = Groups.of(vectors, sentence.seconds, labels)
        labels = merge_alike(groups, clustering.likeness)[labels]
        groups = Groups.of(vectors, sentence.seconds, labels)
        floor = min(self._config.min_seconds, float(groups.seconds.max()))
        kept = groups.subset(np.flatnonzero(groups.seconds >= floor))
        nearest = np.asarray((vectors @ kept.centroids().T).argmax(1), dtype=np.int64)
        _, labels = np.unique(nearest, return_inverse=True)
        return Groups.of(vectors, sentence.seconds, labels), labels

    def _place(self, group: Groups) -> int:
        """The voice of a group: one heard before, or a new one. Voices follow their speakers."""
        if self._voices is None:
            self._voices = group
            return 0
        alike = likeness(group, self._voices)[0]
        best, count = int(alike.argmax()), len(self._voices)
        room = count < (self._num_speakers or self._config.max_speakers)
        if alike[best] < self._config.match and room and group.seconds[0] >= self._config.min_seconds:
            self._voices = self._voices.joined(group)
            return count
        self._voices = self._voices.joined(group).merged(np.append(np.arange(count), best))
        return best

    def _remember(self, sentence: SegmentEmbeddings, labels: LabelArray) -> None:
        self._history.append(sentence)
        self._labels.append(labels)
        self._windows += len(labels)
        while self._windows > self._config.history_windows and self._shrunk < len(self._history) - 1:
            self._shrink(self._shrunk)
            self._shrunk += 1

    def _shrink(self, index: int) -> None:
        """Replace a sentence's windows by the mean of each of its turns."""
        sentence, labels = self._history[index], self._labels[index]
        if not len(labels):
            return
        firsts = np.concatenate(([0], np.flatnonzero(np.diff(labels)) + 1))
        lasts = np.append(firsts[1:], len(labels)) - 1
        sums = np.add.reduceat(unit(sentence.embeddings), firsts, axis=0)
        small = replace(
            sentence,
            embeddings=unit(np.asarray(sums, dtype=np.float32)),
            starts=sentence.starts[firsts],
            ends=sentence.ends[lasts],
        )
        self._history[index], self._labels[index] = small, labels[firsts]
        self._windows -= len(labels) - len(firsts)


class LiveSpeakers:
    """Speakers of one live session by the index of its finals, for gateway.session.

    `voice_of` asks the encoder tier for the embeddings of samples [n], with times from their start.
    """

    def __init__(
        self,
        voice_of: Callable[[Samples], Awaitable[SegmentEmbeddings]],
        num_speakers: int | None = None,
        config: OnlineConfig | None = None,
    ) -> None:
        self._voice_of = voice_of
        self._tracker = OnlineTracker(num_speakers, config)
        self._indices: list[int] = []

    async def embed(self, samples: Samples) -> object:
        """Voice of one utterance; changes nothing."""
        return await self._voice_of(samples)

    def assign(self, index: int, start: float, end: float, voice: object) -> tuple[Turn, ...]:
        """Who speaks in a final, provisionally; `voice` is what embed gave for it."""
        if not isinstance(voice, SegmentEmbeddings):
            return ()
        self._indices.append(index)
        moved = replace(voice.shifted(start), start=start, end=end)
        return self._tracker.add(moved)

    async def finish(self) -> Mapping[int, tuple[Turn, ...]]:
        """Who speaks in each final by index after clustering the whole session again, off the event loop.

        A final that is assigned meanwhile is not among them.
        """
        indices, finishing = tuple(self._indices), self._tracker.finishing()
        turns = await asyncio.to_thread(finishing)
        return {index: own for index, own in zip(indices, turns, strict=True) if own}
