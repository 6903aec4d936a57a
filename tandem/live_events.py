"""What a live session tells its client, in order. Times are seconds from the start of its audio."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from tandem.results import Segment


class EndReason(StrEnum):
    """Why a session ended."""

    CLIENT = "client"
    IDLE = "idle"
    MAX_DURATION = "max_duration"
    DRAIN = "drain"


@dataclass(frozen=True, slots=True)
class Cursors:
    """How far the server is: audio received, audio some result covers, end of the last final."""

    received: float
    decoded: float
    final: float


@dataclass(frozen=True, slots=True)
class SpeechBegan:
    """Speech began at `at`."""

    index: int
    at: float


@dataclass(frozen=True, slots=True)
class SpeechEnded:
    """The endpoint of utterance `index`; its final follows."""

    index: int
    at: float


@dataclass(frozen=True, slots=True)
class Partial:
    """Text of running speech. `fixed` only grows and begins the final text; `unfixed` may change."""

    index: int
    start: float
    end: float
    fixed: str
    unfixed: str
    stability: float

    @property
    def text(self) -> str:
        return self.fixed + self.unfixed


@dataclass(frozen=True, slots=True)
class Final:
    """The text of utterance `index`; never changed, and finals come in the order of their index.

    Where several people speak in it, `parts` are what each of them says, in order: the same text and words.
    `segment.speaker` is the one who speaks longest.
    """

    index: int
    segment: Segment
    parts: tuple[Segment, ...] = ()

    @property
    def sentences(self) -> tuple[Segment, ...]:
        """One segment for each change of speaker."""
        return self.parts or (self.segment,)


@dataclass(frozen=True, slots=True)
class Refined:
    """A final sent before with other attributes (its speakers); the text is the same."""

    index: int
    segment: Segment
    parts: tuple[Segment, ...] = ()

    @property
    def sentences(self) -> tuple[Segment, ...]:
        """One segment for each change of speaker."""
        return self.parts or (self.segment,)


@dataclass(frozen=True, slots=True)
class CheckpointReached:
    """Everything that was sent before checkpoint `number` has its results."""

    number: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The last event."""

    reason: EndReason
    duration: float


LiveEvent = SpeechBegan | SpeechEnded | Partial | Final | Refined | CheckpointReached | Ended
