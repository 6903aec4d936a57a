"""A world for the state machine: simulated time, speech whose samples spell its words, a scripted encoder.

Every sample of word n has the value n, silence is 0. So what a decode "hears" is what its samples say, and
a lost, doubled or cut word shows in the text.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from gateway.session.config import SessionLimits, SessionOptions
from gateway.session.core import SessionCore
from gateway.session.events import Event, Final, Partial, Update
from gateway.session.jobs import Abilities, Answer, CtcHeard, Decoded, DecodeJob, JobKind
from gateway.session.ring import Pcm
from gateway.session.timeline import CtcPiece
from gateway.vad.fsmn import FrameScores
from tandem.errors import TandemError
from tandem.results import Segment, Word

RATE = 16_000
FRAME = RATE // 10


def seconds(value: float) -> int:
    return round(value * RATE)


@dataclass(slots=True)
class Script:
    """Audio built from words and pauses."""

    parts: list[Pcm] = field(default_factory=list)
    words: int = 0

    def say(self, count: int, length: float = 0.3, gap: float = 0.04) -> Script:
        for _ in range(count):
            self.words += 1
            self.parts.append(np.full(seconds(length), self.words, dtype=np.int16))
            self.pause(gap)
        return self

    def pause(self, length: float) -> Script:
        self.parts.append(np.zeros(seconds(length), dtype=np.int16))
        return self

    @property
    def audio(self) -> Pcm:
        return np.concatenate(self.parts)

    @property
    def text(self) -> str:
        return " ".join(f"w{n}" for n in range(1, self.words + 1))


def random_script(rng: random.Random) -> Script:
    """Bursts of speech between pauses of every length around the schedule's steps."""
    script = Script().pause(rng.uniform(0.1, 1.5))
    for _ in range(rng.randint(3, 12)):
        script.say(rng.randint(1, 14), rng.uniform(0.22, 0.4), rng.uniform(0.02, 0.08))
        script.pause(rng.choice([0.1, 0.25, 0.5, 0.9, 1.4, 1.9, 2.1, 2.6, 4.0]) * rng.uniform(0.9, 1.1))
    return script


class ScriptEars:
    """Scores as the network gives them: a frame of 25 ms is speech or not, known two frames later."""

    def __init__(self) -> None:
        self._heard: Pcm = np.empty(0, dtype=np.int16)

    def push(self, block: Pcm) -> FrameScores:
        self._heard = np.concatenate([self._heard, block])
        return self._scores((len(self._heard) - 400) // 160 + 1 - 2)

    def finish(self) -> FrameScores:
        return self._scores((len(self._heard) - 400) // 160 + 1)

    def _scores(self, count: int) -> FrameScores:
        count = max(0, count)
        spoken = np.concatenate([[0], np.cumsum(self._heard != 0)])
        starts = 160 * np.arange(count)
        speech = (spoken[starts + 400] - spoken[starts]) / 400 if count else np.empty(0)
        self._heard = self._heard[160 * count :]
        return FrameScores((speech < 0.5).astype(np.float32), speech.astype(np.float32))


def words_in(samples: Pcm) -> list[tuple[int, int]]:
    """(word, first sample) for each word of which at least 110 ms are in the audio."""
    values = samples.astype(int)
    edges = np.flatnonzero(np.diff(values, prepend=0, append=0))
    found = []
    for first, last in pairwise(edges):
        if values[first] and last - first >= seconds(0.11):
            found.append((int(values[first]), int(first)))
    return found


class ScriptedEncoder:
    """Answers jobs from their samples after a latency; a cut last word is misheard in partials."""

    def __init__(self, latency: Callable[[DecodeJob], float]) -> None:
        self.latency = latency
        self.jobs: list[DecodeJob] = []

    def answer(self, job: DecodeJob) -> Answer:
        found = words_in(job.samples)
        if job.kind is JobKind.CTC:
            pieces = (CtcPiece(f" w{word}".encode(), job.start + at) for word, at in found)
            return CtcHeard(tuple(pieces))
        text = " ".join(f"w{word}" for word, _ in found)
        if job.kind is JobKind.PARTIAL and job.samples[-1]:
            text += "x"
        if job.previous_text:
            assert text.startswith(job.previous_text), (text, job.previous_text)
        words = tuple(
            Word(f"w{word}", (job.start + at) / RATE, (job.start + at) / RATE + 0.11, 1.0)
            for word, at in found
        )
        return Decoded(Segment(text=text, start=job.start / RATE, end=job.end / RATE, words=words))


class World:
    """Runs one session against simulated time and keeps everything it said, with the time it said it."""

    def __init__(
        self,
        options: SessionOptions | None = None,
        latency: Callable[[DecodeJob], float] = lambda job: 0.02,
        limits: SessionLimits | None = None,
        abilities: Abilities | None = None,
    ) -> None:
        self.now = 0.0
        self.ears = ScriptEars()
        self.encoder = ScriptedEncoder(latency)
        self.core = SessionCore(
            options or SessionOptions(), abilities or Abilities(True, 60.0), lambda: self.now, limits
        )
        self.said: list[tuple[float, Update]] = []
        self.outstanding: dict[int, DecodeJob] = {}
        self.error: TandemError | None = None
        self._due: list[tuple[float, int, DecodeJob]] = []
        self._drafts: list[DecodeJob] = []
        self.most_bytes = 0

    def play(self, audio: Pcm, *, pace: float = 1.0, frame: int = FRAME) -> World:
        """Feed `audio` in frames; `pace` 2 is twice as fast as real time."""
        for first in range(0, len(audio), frame):
            block = audio[first : first + frame]
            self.run_until(self.now + len(block) / RATE / pace)
            self.core.hear(block, self.ears.push(block))
            self.carry_out()
            self.run_until(self.now)
            self.most_bytes = max(self.most_bytes, self.core.nbytes)
        return self

    def finish(self) -> World:
        self.core.hear(np.empty(0, np.int16), self.ears.finish(), last=True)
        self.core.stop()
        self.carry_out()
        while self._due:
            self.run_until(self._due[0][0])
        return self

    def run_until(self, moment: float) -> None:
        while self._due and self._due[0][0] <= moment:
            self.now, _, job = heapq.heappop(self._due)
            if job.id not in self.outstanding:
                continue
            if job.kind is JobKind.FINAL and not (job.words_wanted.is_set() or self.error):
                self._drafts.append(job)
                answer = self.encoder.answer(job)
                assert isinstance(answer, Decoded)
                self.core.drafted(job, answer)
                self.carry_out()
                continue
            del self.outstanding[job.id]
            if self.error is not None:
                self.core.failed(job, self.error)
            else:
                self.core.done(job, self.encoder.answer(job))
            self.carry_out()
        self.now = moment

    def carry_out(self) -> None:
        effects = self.core.take()
        for number in effects.cancels:
            self.outstanding.pop(number, None)
        wanted = [job for job in self._drafts if job.words_wanted.is_set()]
        self._drafts = [job for job in self._drafts if job not in wanted]
        for job in wanted:
            heapq.heappush(self._due, (self.now, job.id, job))
        for job in effects.starts:
            self.encoder.jobs.append(job)
            if job.id not in effects.cancels:
                self.outstanding[job.id] = job
                heapq.heappush(self._due, (self.now + self.encoder.latency(job), job.id, job))
        lanes = [job.kind.lane for job in self.outstanding.values()]
        assert len(lanes) == len(set(lanes)), "two jobs outstanding in one lane"
        self.said += [(self.now, update) for update in effects.updates]

    # What was said

    def events(self, kind: type[Event]) -> Iterator[tuple[float, Event]]:
        return ((at, update.event) for at, update in self.said if isinstance(update.event, kind))

    @property
    def finals(self) -> list[Final]:
        return [event for _, event in self.events(Final) if isinstance(event, Final)]

    @property
    def partials(self) -> list[Partial]:
        return [event for _, event in self.events(Partial) if isinstance(event, Partial)]

    def jobs(self, kind: JobKind) -> list[DecodeJob]:
        return [job for job in self.encoder.jobs if job.kind is kind]

    @property
    def text(self) -> str:
        return " ".join(final.segment.text for final in self.finals if final.segment.text)


def check_promises(world: World) -> None:
    """What holds in every session, whatever was said and however slow the encoder was."""
    indexes = [final.index for final in world.finals]
    assert indexes == list(range(len(indexes))), "every index once, in order"
    ends = 0.0
    for final in world.finals:
        assert final.segment.start >= ends - 1e-9, "finals overlap"
        ends = final.segment.end
        fixed = ""
        for partial in world.partials:
            if partial.index == final.index:
                assert partial.fixed.startswith(fixed), "confirmed text shrank"
                fixed = partial.fixed
        assert final.segment.text.startswith(fixed), "the final contradicts confirmed text"
    closed: set[int] = set()
    for _, update in world.said:
        if isinstance(update.event, Final):
            closed.add(update.event.index)
        elif isinstance(update.event, Partial):
            assert update.event.index not in closed, "a partial after its final"
