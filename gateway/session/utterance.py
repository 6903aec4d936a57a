"""One stretch of speech from its begin to its final: audio span, hypotheses, speculative decode."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from gateway.session.config import PartialPolicy
from gateway.session.events import Partial
from gateway.session.ring import Clip
from gateway.session.rollback import Rollback, common_length
from gateway.session.timeline import CtcTimeline
from gateway.vad.fbank import FRAME_SHIFT
from tandem.results import RecognizeOptions, Segment
from tandem.script import join_texts

SAMPLE_RATE = 16_000
# A word that straddles the end of a decode is in its text already.
_STRADDLE = 8 * FRAME_SHIFT
_FULL_STOPS = ".?!。？！"


@dataclass(frozen=True, slots=True)
class Speculation:
    """A final decode begun in the pause that starts at `pause`; `answer` is None until it is there.

    Its text may have been shown before that.
    """

    job: int
    pause: int
    options: RecognizeOptions
    is_shown: bool = False
    answer: Segment | None = None


@dataclass(slots=True)
class Utterance:
    """Speech [start, end) in samples; `end` and `audio` are set at the endpoint, `answer` at the final.

    Until the detector `is_sure` of it, it may begin later yet; `base` is where it was first expected to, and
    its audio is kept from there on. `told_at` is how much had been heard when the client was told of it.

    Passes over running speech: `ctc_end` is where the last one of the CTC branch ended, `llm_end` the last
    partial of the language model, `asked_end` the last span that it was asked for, partial or not.
    """

    index: int
    start: int
    base: int
    rollback: Rollback
    timeline: CtcTimeline
    is_sure: bool = False
    told_at: int = 0
    end: int | None = None
    audio: Clip | None = None
    options: RecognizeOptions | None = None
    answer: Segment | None = None
    speculation: Speculation | None = None
    ctc_end: int = 0
    llm_end: int = 0
    asked_end: int = 0
    shown: str = ""
    _fixed_shown: str = field(default="")

    @classmethod
    def begin(cls, index: int, start: int, policy: PartialPolicy) -> Utterance:
        rollback = Rollback(policy.rollback_chars, policy.stage1_decodes)
        timeline = CtcTimeline(start, int(policy.context * SAMPLE_RATE))
        return cls(index, start, start, rollback, timeline, ctc_end=start, llm_end=start, asked_end=start)

    def begin_at(self, start: int) -> None:
        """It begins at `start`, or less than a frame earlier; the language model has not been asked yet."""
        before = self.start
        self.start = self.base + max(0, start - self.base) // FRAME_SHIFT * FRAME_SHIFT
        self.llm_end = self.asked_end = self.start
        if self.ctc_end == before:
            self.ctc_end = self.start

    def running_text(self) -> str:
        """What has been heard so far: the last hypothesis, and after it what only CTC has heard yet."""
        if not self.rollback.hypothesis:
            return self.timeline.text()
        text = self.rollback.hypothesis
        tail = self.timeline.tail(self.rollback.covered + _STRADDLE)
        if tail and not self.rollback.fixed.endswith(text):
            # A sentence that goes on was not over.
            text = text.rstrip(_FULL_STOPS)
        return join_texts([text if text.startswith(self.rollback.fixed) else self.rollback.fixed, tail])

    def show(self, now: int) -> Partial | None:
        """A partial of speech up to sample `now`; None when nothing changed since the last one."""
        text, fixed = self.running_text(), self.rollback.fixed
        if (text, fixed) == (self.shown, self._fixed_shown):
            return None
        kept = common_length(text, self.shown)
        stability = max(kept, len(fixed)) / len(text) if text else 0.0
        self.shown, self._fixed_shown = text, fixed
        start, end = self.start / SAMPLE_RATE, now / SAMPLE_RATE
        return Partial(self.index, start, end, fixed, text[len(fixed) :], round(stability, 3))

    def final(self) -> Segment:
        """The answer with the utterance's own times, and text that begins as promised."""
        assert self.end is not None and self.answer is not None
        text, fixed = self.answer.text, self.rollback.fixed
        if not text.startswith(fixed):
            text = fixed
        return replace(self.answer, text=text, start=self.start / SAMPLE_RATE, end=self.end / SAMPLE_RATE)
