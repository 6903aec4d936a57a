"""A session at work: carries out what the state machine asks, on the event loop."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import replace

import numpy as np

from gateway.session.config import SessionLimits, SessionOptions
from gateway.session.core import SessionCore
from gateway.session.ears import Ears
from gateway.session.events import Cursors, Ended, EndReason, Failed, Final, Refined, Update
from gateway.session.jobs import Backend, DecodeJob, JobKind
from gateway.session.load import Load
from gateway.session.outbox import Outbox
from gateway.session.ring import Pcm
from gateway.session.speakers import SpeakerTracker
from tandem.errors import InternalError, InvalidRequest, TandemError
from tandem.results import Segment

log = logging.getLogger("tandem.gateway.session")

_NOTHING: Pcm = np.empty(0, dtype=np.int16)
# Samples pushed at once; between two blocks other sessions have their turn.
_BLOCK = 16_000
_BACKLOG_POLL = 0.02


class LiveSession:
    """One live session. Methods are called from one task per client; `outbox` is read by another."""

    def __init__(
        self,
        options: SessionOptions,
        backend: Backend,
        ears: Ears,
        limits: SessionLimits,
        clock: Callable[[], float],
        load: Load,
        speakers: SpeakerTracker | None = None,
    ) -> None:
        self.id = uuid.uuid4().hex[:16]
        self.outbox = Outbox(limits.replay_finals)
        self._core = SessionCore(options, backend.abilities, clock, limits, load.spare, load.stretch)
        self._backend, self._ears, self._limits = backend, ears, limits
        self._load, self._speakers = load, speakers
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._voices: dict[int, asyncio.Task[object]] = {}
        self._labels: set[asyncio.Task[None]] = set()
        self._finals: dict[int, Segment] = {}
        self._stopped = False

    # The client's side

    async def hear(self, pcm: Pcm) -> None:
        """Adds int16 samples [n] at 16 kHz. Waits while too much speech is still to be decoded."""
        for first in range(0, len(pcm), _BLOCK):
            while self._behind() and not self.ended:
                await asyncio.sleep(_BACKLOG_POLL)
            if self._stopped or self.ended:
                return
            block = pcm[first : first + _BLOCK]
            self._core.hear(block, self._ears.push(block))
            self._carry_out()
            if len(pcm) > _BLOCK:
                await asyncio.sleep(0)

    def finalize(self) -> bool:
        """End the utterance now; False when there is none."""
        done = self._core.finalize()
        self._carry_out()
        return done

    def clear(self) -> None:
        """Forget running speech."""
        self._core.clear()
        self._carry_out()

    def checkpoint(self, number: int) -> None:
        """The text of everything heard so far, then CheckpointReached. InvalidRequest when too many wait."""
        self._core.checkpoint(number)
        self._carry_out()

    def update(self, language: str | None, hotwords: tuple[str, ...]) -> None:
        """Language and hotwords for what follows and for the final of running speech."""
        now = self.options
        self.reconfigure(replace(now, recognize=replace(now.recognize, language=language, hotwords=hotwords)))

    def reconfigure(self, options: SessionOptions) -> None:
        """Other options for what follows and for the final of running speech."""
        try:
            self._core.reconfigure(options)
        except ValueError as error:
            raise InvalidRequest.of("endpoint", str(error)) from error
        self._carry_out()

    def stop(self, reason: EndReason = EndReason.CLIENT) -> None:
        """No more audio: the rest is decoded, then the session ends."""
        if not self._stopped:
            self._stopped = True
            self._core.hear(_NOTHING, self._ears.finish(), last=True)
            self._core.stop(reason)
            self._carry_out()

    def tick(self) -> None:
        """Timers; called a few times a second."""
        reason = self._core.tick()
        if reason is not None:
            self.stop(reason)
        self._carry_out()

    def touch(self) -> None:
        """A client came back."""
        self._core.touch()

    def close(self) -> None:
        """Drop everything at once."""
        self._stopped = True
        for task in (*self._tasks.values(), *self._voices.values(), *self._labels):
            task.cancel()
        self._tasks.clear()
        self._voices.clear()

    @property
    def options(self) -> SessionOptions:
        return self._core.options

    @property
    def cursors(self) -> Cursors:
        return self._core.cursors

    @property
    def last_index(self) -> int:
        """Index of the utterance that began last; -1 before the first."""
        return self._core.last_index

    @property
    def speaking_since(self) -> float | None:
        return self._core.speaking_since

    @property
    def backlog(self) -> float:
        """Seconds of ended speech that waits for its final."""
        return self._core.backlog

    @property
    def ended(self) -> bool:
        return self._core.ended

    @property
    def nbytes(self) -> int:
        return self._core.nbytes

    def _behind(self) -> bool:
        return self._core.backlog > self._limits.backlog or self.outbox.full

    # The recognizer's side

    def _carry_out(self) -> None:
        effects = self._core.take()
        for number in effects.cancels:
            task = self._tasks.pop(number, None)
            if task is not None:
                task.cancel()
        for job in effects.starts:
            if job.id not in effects.cancels:
                self._tasks[job.id] = asyncio.create_task(self._run(job))
                self._listen(job)
        for update in effects.updates:
            self._publish(update)

    async def _run(self, job: DecodeJob) -> None:
        begun = self._load.begin(job.kind)
        try:
            run = self._backend.ctc if job.kind is JobKind.CTC else self._backend.decode
            answer = await run(job)
        except TandemError as error:
            log.info("session %s: %s of utterance %d: %s", self.id, job.kind.value, job.index, error)
            self._core.failed(job, error)
        except Exception:
            log.exception("session %s: %s of utterance %d failed", self.id, job.kind.value, job.index)
            self._core.failed(job, InternalError("internal error in a decode; see the log"))
        else:
            self._core.done(job, answer)
        finally:
            self._load.end(job.kind, begun)
        self._tasks.pop(job.id, None)
        self._carry_out()

    def _publish(self, update: Update) -> None:
        event = update.event
        if isinstance(event, Final):
            update = replace(update, event=self._with_speaker(event))
        elif isinstance(event, Ended) and self._speakers is not None:
            self._keep(self._recluster(update))
            return
        elif isinstance(event, Failed):
            self.close()
        self.outbox.put(update)

    # Speakers

    def _listen(self, job: DecodeJob) -> None:
        if self._speakers is None or job.kind is not JobKind.FINAL:
            return
        before = self._voices.pop(job.index, None)
        if before is not None:
            before.cancel()
        self._voices[job.index] = asyncio.create_task(_voice(self._speakers, job))

    def _with_speaker(self, final: Final) -> Final:
        """The final with its speaker if that is known already; else a refinement follows."""
        voice = self._voices.pop(final.index, None)
        if voice is None or self._speakers is None:
            return final
        self._finals[final.index] = final.segment
        if not voice.done():
            self._keep(self._label_later(final, voice))
            return final
        return Final(final.index, self._labelled(final, voice.result()))

    def _labelled(self, final: Final, voice: object) -> Segment:
        assert self._speakers is not None
        segment = final.segment
        if voice is not None:
            label = self._speakers.assign(final.index, segment.start, segment.end, voice)
            segment = replace(segment, speaker=label)
        self._finals[final.index] = segment
        return segment

    async def _label_later(self, final: Final, voice: asyncio.Task[object]) -> None:
        segment = self._labelled(final, await voice)
        if segment.speaker is not None:
            self.outbox.put(Update(Refined(final.index, segment), self.cursors))

    async def _recluster(self, ended: Update) -> None:
        """Speakers of the whole session, then its last event."""
        assert self._speakers is not None
        current = asyncio.current_task()
        await asyncio.gather(*(task for task in self._labels if task is not current))
        try:
            labels = await self._speakers.finish()
        except TandemError as error:
            log.warning("session %s: speakers stay provisional: %s", self.id, error)
            labels = {}
        for index, label in sorted(labels.items()):
            segment = self._finals.get(index)
            if segment is not None and segment.speaker != label:
                self.outbox.put(Update(Refined(index, replace(segment, speaker=label)), self.cursors))
        self.outbox.put(ended)

    def _keep(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._labels.add(task)
        task.add_done_callback(self._labels.discard)


async def _voice(speakers: SpeakerTracker, job: DecodeJob) -> object:
    """The voice of a job's audio, or None when it cannot be had: text does not wait for speakers."""
    try:
        return await speakers.embed(job.samples)
    except TandemError as error:
        log.warning("no speaker for utterance %d: %s", job.index, error)
        return None
