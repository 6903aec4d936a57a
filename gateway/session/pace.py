"""When the next partial may start: load makes partials rarer, one lane at a time."""

from __future__ import annotations

from gateway.session.config import PartialPolicy
from gateway.session.jobs import Abilities
from gateway.session.utterance import SAMPLE_RATE, Utterance

_SMOOTHING = 0.3
_MIN_PARTIAL = 0.2


class Pace:
    """Rest of one lane. After a decode that took t seconds it rests `factor` times the recent average."""

    def __init__(self, factor: float) -> None:
        self._factor = factor
        self._latency = 0.0
        self._started = 0.0
        self._free_at = 0.0

    def start(self, now: float) -> None:
        self._started = now

    def done(self, now: float) -> None:
        """The decode begun last has ended."""
        taken = now - self._started
        self._latency += _SMOOTHING * (taken - self._latency) if self._latency else taken
        self._free_at = now + self._factor * self._latency

    def refused(self, now: float, retry_after: float) -> None:
        """The tier had no room."""
        self._free_at = now + retry_after

    def ready(self, now: float) -> bool:
        return now >= self._free_at


def ctc_due(utterance: Utterance, policy: PartialPolicy, now: int, pause: float, stretch: float) -> bool:
    """Whether there is enough new audio for a CTC pass at sample `now`; none is needed deep in a pause.

    `stretch` lengthens the interval, except until the first words are there.
    """
    if utterance.ctc_end == utterance.start:
        return now - utterance.start >= _MIN_PARTIAL * SAMPLE_RATE
    step = policy.interval * stretch if utterance.shown else policy.first_interval
    return pause < policy.speculate_after and now - utterance.ctc_end >= step * SAMPLE_RATE


def llm_due(
    utterance: Utterance, policy: PartialPolicy, now: int, pause: float, abilities: Abilities
) -> bool:
    """Whether the language model should hear running speech again; a pause belongs to the final decode."""
    least = policy.llm_min_audio if abilities.ctc else policy.llm_interval
    long_enough = now - utterance.start >= least * SAMPLE_RATE
    new_audio = now - utterance.llm_end
    return policy.llm and pause == 0 and long_enough and new_audio >= policy.llm_interval * SAMPLE_RATE
