"""The hook for speakers: how a session learns who spoke, without knowing how that is found out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from gateway.session.ring import Samples


class SpeakerTracker(Protocol):
    """Speakers of one session. Labels are "SPK0", "SPK1", ... by first appearance."""

    async def embed(self, samples: Samples) -> object:
        """Voice of one utterance, float32 [n] at 16 kHz. Changes nothing: the utterance may yet go on."""

    def assign(self, index: int, start: float, end: float, voice: object) -> str | None:
        """The provisional speaker of a final; `voice` is what embed gave for it."""

    async def finish(self) -> Mapping[int, str]:
        """Speakers of all finals by index after clustering the whole session again."""
