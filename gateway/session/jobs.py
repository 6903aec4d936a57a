"""What a session asks of the recognizer and what comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from gateway.session.events import Update
from gateway.session.ring import Clip, Pcm
from gateway.session.timeline import CtcPiece
from tandem.results import RecognizeOptions, Segment


@dataclass(frozen=True, slots=True)
class Abilities:
    """What the served model can do: a CTC branch, and the longest segment in seconds."""

    ctc: bool
    max_segment: float


class Lane(Enum):
    """A session has at most one outstanding job in each lane; nothing queues behind it."""

    CTC = "ctc"
    LLM = "llm"


class JobKind(Enum):
    """CTC: best path of running speech. PARTIAL: language model on running speech. FINAL: whole utterance."""

    CTC = "ctc"
    PARTIAL = "partial"
    FINAL = "final"

    @property
    def lane(self) -> Lane:
        return Lane.CTC if self is JobKind.CTC else Lane.LLM


@dataclass(frozen=True, slots=True, eq=False)
class DecodeJob:
    """Audio [start, end) of the stream, in samples, of utterance `index`, which `audio` has from its begin.

    The answer continues `previous_text`, which is part of it. Finals and first words are `urgent`. A final's
    words need no times before `words_wanted`: until then speech may go on, which would make them void.
    """

    id: int
    kind: JobKind
    index: int
    start: int
    end: int
    audio: Clip
    options: RecognizeOptions
    previous_text: str = ""
    urgent: bool = False
    words_wanted: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def samples(self) -> Pcm:
        """int16 [end - start]."""
        return self.audio.read(self.start, self.end)


@dataclass(frozen=True, slots=True)
class CtcHeard:
    """Answer to a CTC job."""

    pieces: tuple[CtcPiece, ...]


@dataclass(frozen=True, slots=True)
class Decoded:
    """Answer to a PARTIAL or FINAL job; times of the segment count from the start of the stream."""

    segment: Segment


Answer = CtcHeard | Decoded


@dataclass(slots=True)
class Effects:
    """What the caller has to do: tell the client, start decodes, cancel decodes by id.

    `released` are utterances of which nothing will be decoded any more.
    """

    updates: list[Update] = field(default_factory=list)
    starts: list[DecodeJob] = field(default_factory=list)
    cancels: list[int] = field(default_factory=list)
    released: list[int] = field(default_factory=list)


class Backend(Protocol):
    """Answers the jobs of all sessions."""

    @property
    def abilities(self) -> Abilities:
        """What jobs may ask for."""

    def session(self) -> SessionBackend:
        """For the jobs of one session."""


class SessionBackend(Protocol):
    """Answers the jobs of one session. Raises TandemError when it gives up."""

    async def ctc(self, job: DecodeJob) -> CtcHeard:
        """The CTC best path of the job's audio."""

    async def decode(self, job: DecodeJob, drafted: Callable[[Decoded], None]) -> Decoded:
        """The language model's text of the job's audio; `drafted` gets it if its words are not wanted yet."""

    def release(self, index: int) -> None:
        """Utterance `index` has no more jobs."""

    def close(self) -> None:
        """The session is over."""
