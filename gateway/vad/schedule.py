"""How much silence ends a segment, depending on how long the segment already is.

Short utterances wait long for the speaker to go on; long ones are cut at ever shorter pauses, so that
they end before they must be cut inside a word.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class SilenceSchedule:
    """Steps (speech_ms, silence_ms): silence_ms applies while the segment is at most speech_ms long.

    Beyond the last step its silence_ms stays in force.
    """

    steps: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        limits = [limit for limit, _ in self.steps]
        if not limits:
            raise ValueError("a silence schedule needs at least one step")
        if any(not later > earlier for earlier, later in pairwise(limits)):
            raise ValueError(f"speech lengths of a silence schedule must ascend: {limits}")
        if limits[0] <= 0:
            raise ValueError(f"speech lengths of a silence schedule must be positive: {limits}")
        if any(not 0 <= silence < math.inf for _, silence in self.steps):
            raise ValueError(f"silences of a schedule must be finite and at least 0: {self.steps}")

    @classmethod
    def of(cls, steps: Iterable[tuple[float, float]]) -> SilenceSchedule:
        """From pairs in ms, as the SDK and the HTTP interfaces take them."""
        return cls(tuple((float(speech), float(silence)) for speech, silence in steps))

    @classmethod
    def fixed(cls, silence_ms: float) -> SilenceSchedule:
        """The same silence for segments of every length."""
        return cls.of([(math.inf, silence_ms)])

    def required_ms(self, speech_ms: float) -> float:
        """Silence that ends a segment of `speech_ms`."""
        for limit, silence in self.steps:
            if speech_ms <= limit:
                return silence
        return self.steps[-1][1]


# Whole recordings: keep segments long, the context helps the language model.
OFFLINE_SCHEDULE = SilenceSchedule.of(
    [
        (10_000, 2000),
        (20_000, 1000),
        (30_000, 800),
        (40_000, 600),
        (50_000, 400),
        (60_000, 200),
        (math.inf, 100),
    ]
)
# Live audio: tighten faster, the speaker is waiting.
STREAMING_SCHEDULE = SilenceSchedule.of(
    [(5_000, 2000), (10_000, 1500), (15_000, 1000), (30_000, 800), (45_000, 400), (math.inf, 100)]
)
