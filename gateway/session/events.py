"""Events inside the gateway: those a client sees, the failure of a session, and the cursors with each."""

from __future__ import annotations

from dataclasses import dataclass

from tandem.errors import TandemError
from tandem.live_events import (
    CheckpointReached,
    Cursors,
    Ended,
    EndReason,
    Final,
    LiveEvent,
    Partial,
    Refined,
    SpeechBegan,
    SpeechEnded,
)


@dataclass(frozen=True, slots=True)
class Failed:
    """The last event of a session that cannot go on: a final decode failed for good."""

    error: TandemError


Event = LiveEvent | Failed


@dataclass(frozen=True, slots=True)
class Update:
    """An event with the cursors when it happened."""

    event: Event
    cursors: Cursors


__all__ = [
    "CheckpointReached",
    "Cursors",
    "EndReason",
    "Ended",
    "Event",
    "Failed",
    "Final",
    "Partial",
    "Refined",
    "SpeechBegan",
    "SpeechEnded",
    "Update",
]
