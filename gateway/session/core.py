"""The state machine of a live session (docs/streaming.md): no transport, no tasks, no clock of its own.

Inputs are method calls; the caller takes what they bring about and carries it out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace

from gateway.session.config import SessionLimits, SessionOptions
from gateway.session.events import CheckpointReached, Cursors, Ended, EndReason, Event, Failed, Final, Update
from gateway.session.jobs import Abilities, Answer, CtcHeard, Decoded, DecodeJob, Effects, JobKind, Lane
from gateway.session.lanes import Lanes
from gateway.session.pace import ctc_due, ctc_start, llm_due
from gateway.session.ring import Pcm
from gateway.session.speech import Speech
from gateway.session.utterance import SAMPLE_RATE, Speculation, Utterance
from gateway.vad.fsmn import FrameScores
from tandem.errors import InvalidRequest, TandemError

_MAX_CHECKPOINTS = 16


class SessionCore:
    """One live session. `clock` is monotonic seconds; `spare` says whether the deployment has room for
    language-model partials just now, `stretch` how much rarer than planned CTC passes should be."""

    def __init__(
        self,
        options: SessionOptions,
        abilities: Abilities,
        clock: Callable[[], float],
        limits: SessionLimits | None = None,
        spare: Callable[[], bool] = lambda: True,
        stretch: Callable[[], float] = lambda: 1.0,
    ) -> None:
        self.options = options
        self.ended = False
        self._abilities = abilities
        self._clock = clock
        self._limits = limits or SessionLimits()
        self._spare, self._stretch = spare, stretch
        self._lanes = Lanes(clock, options.partials.load_factor)
        self._speech = Speech(
            options, abilities.max_segment, self._lanes, self._emit, self._deliver, ctc=abilities.ctc
        )
        self._checkpoints: deque[tuple[int, int]] = deque()
        self._updates: list[Update] = []
        self._decoded = 0
        self._final = 0
        self._began = self._heard_at = clock()
        self._reason: EndReason | None = None

    # Inputs

    def hear(self, block: Pcm, scores: FrameScores, *, last: bool = False) -> None:
        """Adds int16 samples [n]; `scores` are those of all frames that have become known."""
        self._heard_at = self._clock()
        self._speech.hear(block, scores, last=last)
        self._show_words()
        self._proceed()

    def finalize(self) -> bool:
        """The client ends the utterance. False when there was nothing to end."""
        self._heard_at = self._clock()
        ended = self._speech.finalize()
        self._proceed()
        return ended

    def clear(self) -> None:
        """Running speech is forgotten: it gets no final."""
        self._heard_at = self._clock()
        self._speech.clear()
        self._proceed()

    def checkpoint(self, number: int) -> None:
        """The client asks for the text of its audio so far; CheckpointReached(number) follows it."""
        self._heard_at = self._clock()
        if len(self._checkpoints) >= _MAX_CHECKPOINTS:
            raise InvalidRequest.of("checkpoint", f"{_MAX_CHECKPOINTS} are waiting for their answer already")
        self._checkpoints.append((number, self._speech.ring.end))
        self._proceed()

    def reconfigure(self, options: SessionOptions) -> None:
        """Holds for every decode that starts from now on, the final of running speech included."""
        self._heard_at = self._clock()
        self._speech.reconfigure(options)
        before, self.options = self.options, options
        if before.recognize == options.recognize:
            return
        if self._speech.running is not None:
            self._lanes.drop_speculation(self._speech.running)
        self._proceed()

    def stop(self, reason: EndReason = EndReason.CLIENT) -> None:
        """No more audio follows (push the last scores first); the session ends after its last final."""
        if self._reason is None:
            self._reason = reason
            self._speech.stop()
            self._proceed()

    def tick(self) -> EndReason | None:
        """Timers. Returns the reason for which the caller should end the session now."""
        now = self._clock()
        if self._reason is not None:
            return None
        if self._checkpoints:
            self._proceed()
        if now - self._began >= self._limits.max_duration:
            return EndReason.MAX_DURATION
        if now - self._heard_at >= self._limits.idle:
            return EndReason.IDLE
        stalled = now - self._heard_at >= self._limits.stall
        if stalled and self._speech.running is not None and not self.options.client_endpoint:
            heard_at = self._heard_at
            self.finalize()
            self._heard_at = heard_at
        return None

    def touch(self) -> None:
        """The client is back after a lost connection: the time away was not idleness."""
        self._heard_at = self._clock()

    def drafted(self, job: DecodeJob, answer: Decoded) -> None:
        """The text of a speculative final, which the pause has not confirmed yet; done() follows."""
        if not self._lanes.drafted(job):
            return
        self._decoded = max(self._decoded, job.end)
        running = self._speech.running
        if running is not None and running.speculation is not None and running.speculation.job == job.id:
            running.speculation = replace(running.speculation, is_shown=True)
            self._observe(running, answer.segment.text, job.end)
        self._proceed()

    def done(self, job: DecodeJob, answer: Answer) -> None:
        """A decode ended; answers to cancelled ones are ignored."""
        if not self._lanes.done(job):
            return
        self._decoded = max(self._decoded, job.end)
        if isinstance(answer, CtcHeard):
            self._ctc_done(job, answer)
        elif job.kind is JobKind.PARTIAL:
            self._partial_done(job, answer.segment.text)
        else:
            self._final_done(job, answer)
        self._proceed()

    def failed(self, job: DecodeJob, error: TandemError) -> None:
        """A decode failed for good. A partial is skipped; a session without a final cannot go on."""
        if not self._lanes.failed(job, error):
            return
        running = self._speech.running
        if job.kind is JobKind.FINAL and not (running is not None and running.index == job.index):
            self._emit(Failed(error))
            self.ended = True
            return
        if running is not None and running.speculation is not None:
            # Not again in this pause; at the endpoint the final is asked for in earnest.
            running.speculation = replace(running.speculation, job=0)
        self._proceed()

    # What the caller asks

    @property
    def cursors(self) -> Cursors:
        return Cursors(*(at / SAMPLE_RATE for at in (self._speech.ring.end, self._decoded, self._final)))

    @property
    def backlog(self) -> float:
        """Seconds of ended speech that waits for its final."""
        return self._speech.backlog

    @property
    def last_index(self) -> int:
        """Index of the utterance that began last; -1 before the first."""
        return self._speech.next_index - 1

    @property
    def speaking_since(self) -> float | None:
        """Where running speech began; None outside speech."""
        running = self._speech.running
        return None if running is None else running.start / SAMPLE_RATE

    @property
    def nbytes(self) -> int:
        """Memory of the audio held."""
        return self._speech.nbytes

    def take(self) -> Effects:
        """The effects since the last call."""
        updates, self._updates = self._updates, []
        return self._lanes.take(updates)

    # Decodes

    def _proceed(self) -> None:
        """What follows from a change: decodes that are due, checkpoints reached, the end."""
        if self.ended:
            return
        self._schedule()
        while self._checkpoints and not self._owes(self._checkpoints[0][1]):
            self._emit(CheckpointReached(self._checkpoints.popleft()[0]))
        if self._reason is not None and not self._speech.closed:
            self.ended = True
            self._emit(Ended(self._reason, self._speech.ring.end / SAMPLE_RATE))

    def _owes(self, position: int) -> bool:
        """Whether results of audio before sample `position` are still to come."""
        if any(utterance.start < position for utterance in self._speech.closed):
            return True
        running = self._speech.running
        if running is None or running.start >= position:
            return False
        return self._unheard(running, position) or self._lanes.owes_text

    def _unheard(self, running: Utterance, position: int) -> bool:
        """Whether the language model has to be asked because of a checkpoint at `position`."""
        wanted = self.options.partials.enabled and self.options.partials.llm
        return wanted and running.llm_end < position and running.speculation is None

    def _schedule(self) -> None:
        self._schedule_final()
        policy = self.options.partials
        if policy.enabled:
            self._schedule_partial()
            if self._abilities.ctc and not policy.at_checkpoints:
                self._schedule_ctc()

    def _schedule_partial(self) -> None:
        running, now = self._speech.running, self._speech.ring.end
        if running is not None and self._partial_due(running, now) and self._spare():
            running.llm_end = running.asked_end = now
            self._start(JobKind.PARTIAL, running, now, running.rollback.previous_text())

    def _schedule_ctc(self) -> None:
        utterance, now, policy = self._speech.listened_to, self._speech.ring.end, self.options.partials
        if utterance is None or not self._lanes.free(Lane.CTC):
            return
        if ctc_due(utterance, policy, now, self._speech.endpoints.pause, self._stretch()):
            start = ctc_start(utterance, policy, now)
            utterance.ctc_end = now
            self._start(JobKind.CTC, utterance, now, start=start)

    def _partial_due(self, running: Utterance, now: int) -> bool:
        policy = self.options.partials
        if self._checkpoints and self._unheard(running, self._checkpoints[-1][1]):
            return self._lanes.busy(Lane.LLM) is None
        if policy.at_checkpoints or not self._lanes.free(Lane.LLM):
            return False
        return llm_due(running, policy, now, self._speech.endpoints.pause, self._abilities)

    def _schedule_final(self) -> None:
        """Finals of ended speech in order, then the speculative one of a pause; both displace a partial."""
        busy = self._lanes.busy(Lane.LLM)
        waiting = next((u for u in self._speech.closed if u.answer is None), None)
        if waiting is not None:
            if busy is not None and busy.kind is JobKind.FINAL and busy.index == waiting.index:
                return
            if busy is not None:
                self._lanes.cancel(Lane.LLM, busy.index)
            assert waiting.end is not None
            self._start(JobKind.FINAL, waiting, waiting.end, waiting.rollback.fixed).words_wanted.set()
            return
        running, pause_at = self._speech.running, self._speech.endpoints.pause_at
        if running is None or pause_at is None or running.speculation is not None:
            return
        settled = self._speech.endpoints.pause >= self.options.partials.speculate_after
        if not settled or not running.start < pause_at <= self._speech.ring.end:
            return
        if busy is not None:
            self._lanes.cancel(Lane.LLM, busy.index)
        job = self._start(JobKind.FINAL, running, pause_at, running.rollback.fixed)
        running.speculation = Speculation(job.id, pause_at, job.options)
        running.asked_end = pause_at

    def _start(
        self,
        kind: JobKind,
        utterance: Utterance,
        end: int,
        previous_text: str = "",
        *,
        start: int | None = None,
    ) -> DecodeJob:
        start = utterance.start if start is None else start
        audio = utterance.audio or self._speech.ring.clip(utterance.base, end)
        options = utterance.options or self.options.recognize
        number = self._lanes.next_id
        urgent = kind is JobKind.FINAL or (kind is JobKind.CTC and not utterance.shown)
        job = DecodeJob(number, kind, utterance.index, start, end, audio, options, previous_text, urgent)
        return self._lanes.start(job)

    # Answers

    def _ctc_done(self, job: DecodeJob, answer: CtcHeard) -> None:
        utterance = self._speech.listened_to
        if utterance is None or utterance.index != job.index:
            return
        utterance.timeline.merge(answer.pieces, job.start)
        self._speech.begin_by_words()
        if utterance is self._speech.running:
            self._show(utterance)

    def _partial_done(self, job: DecodeJob, text: str) -> None:
        running = self._speech.running
        if running is not None and running.index == job.index:
            self._observe(running, text, job.end)

    def _final_done(self, job: DecodeJob, answer: Decoded) -> None:
        running = self._speech.running
        if running is not None and running.index == job.index:
            shown = running.speculation is not None and running.speculation.is_shown
            if running.speculation is not None:
                running.speculation = replace(running.speculation, answer=answer.segment)
            if not shown:
                self._observe(running, answer.segment.text, job.end)
            return
        for utterance in self._speech.closed:
            if utterance.index == job.index:
                utterance.answer = answer.segment
        self._deliver()

    def _observe(self, running: Utterance, text: str, covered: int) -> None:
        safe = covered - running.start <= self._speech.endpoints.never_cut_before
        running.rollback.observe(text, covered, may_confirm=safe)
        self._show(running)

    def _show_words(self) -> None:
        """Words that were there before their speech began."""
        running = self._speech.running
        if running is not None and not running.shown and running.timeline.text():
            self._show(running)

    def _show(self, utterance: Utterance) -> None:
        partial = utterance.show(self._speech.ring.end) if self.options.partials.enabled else None
        if partial is not None:
            self._emit(partial)

    def _deliver(self) -> None:
        """Finals whose answer is there, oldest first; a later one waits for those before it."""
        while self._speech.closed and self._speech.closed[0].answer is not None:
            utterance = self._speech.closed.popleft()
            assert utterance.end is not None and utterance.answer is not None
            self._final = utterance.end
            self._emit(Final(utterance.index, utterance.final()))
            self._lanes.forget(utterance.index)

    def _emit(self, event: Event) -> None:
        self._updates.append(Update(event, self.cursors))
