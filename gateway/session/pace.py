"""When the next partial may start: load makes partials rarer, one lane at a time."""

from __future__ import annotations

from gateway.session.config import PartialPolicy
from gateway.session.jobs import Abilities
from gateway.session.utterance import SAMPLE_RATE, Utterance
from gateway.vad.fbank import FRAME_SHIFT

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


def ctc_start(utterance: Utterance, policy: PartialPolicy, now: int) -> int:
    """Where a CTC pass up to sample `now` begins: what nobody has heard well yet, and some context."""
    if policy.window <= 0:
        return utterance.base
    unheard = max(utterance.ctc_end - int(policy.unsettled * SAMPLE_RATE), utterance.rollback.covered)
    first = max(unheard - int(policy.context * SAMPLE_RATE), now - int(policy.window * SAMPLE_RATE))
    surplus = max(0, first - utterance.base)
    return utterance.base + surplus // FRAME_SHIFT * FRAME_SHIFT


def llm_due(
    utterance: Utterance, policy: PartialPolicy, now: int, pause: float, abilities: Abilities
) -> bool:
    """Whether the language model should hear running speech again; a pause belongs to the final decode."""
    least = policy.llm_min_audio if abilities.ctc else policy.llm_interval
    long_enough = now - utterance.start >= least * SAMPLE_RATE
    rested = now - utterance.llm_end >= policy.llm_interval * SAMPLE_RATE
    # All of it is encoded again: without this, what an utterance costs would grow with its length squared.
    grown = now - utterance.asked_end >= policy.llm_growth * (utterance.asked_end - utterance.start)
    return policy.llm and pause == 0 and long_enough and rested and grown
