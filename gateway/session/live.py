"""A session at work: carries out what the state machine asks, on the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from gateway.session.config import SessionLimits, SessionOptions
from gateway.session.core import SessionCore
from gateway.session.events import Cursors, Ended, EndReason, Failed, Final, Refined, Update
from gateway.session.hearing import Hearing
from gateway.session.jobs import Answer, Backend, Decoded, DecodeJob, JobKind
from gateway.session.load import Load
from gateway.session.outbox import Outbox
from gateway.session.ring import Pcm
from gateway.session.speakers import SessionSpeakers, SpeakerTracker
from gateway.vad.fsmn import FrameScores
from tandem.convert import check_options
from tandem.errors import InternalError, InvalidRequest, TandemError

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
        hearing: Hearing,
        limits: SessionLimits,
        clock: Callable[[], float],
        load: Load,
        speakers: SpeakerTracker | None = None,
    ) -> None:
        self.id = uuid.uuid4().hex[:16]
        self.outbox = Outbox(limits.replay_finals)
        self._core = SessionCore(options, backend.abilities, clock, limits, load.spare, load.stretch)
        self._backend, self._limits, self._load = backend.session(), limits, load
        self._inlet = hearing.inlet(self._heard, self._failed)
        self._speakers: SessionSpeakers | None = None
        if speakers is not None:
            self._speakers = SessionSpeakers(speakers, self._tell, word_times=options.recognize.word_times)
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._stopped = False

    # The client's side

    async def hear(self, pcm: Pcm) -> None:
        """Adds int16 samples [n] at 16 kHz. Waits while too much speech is still to be decoded."""
        for first in range(0, len(pcm), _BLOCK):
            await self.room()
            if self._stopped or self.ended:
                return
            self._inlet.add(pcm[first : first + _BLOCK])
            if len(pcm) > _BLOCK:
                await asyncio.sleep(0)

    async def room(self) -> None:
        """Waits while too much speech is still to be decoded, or too much to be read by the client."""
        while self._behind() and not self.ended:
            await asyncio.sleep(_BACKLOG_POLL)

    def _heard(self, block: Pcm, scores: FrameScores) -> None:
        self._core.hear(block, scores)
        self._carry_out()

    def _failed(self, error: Exception) -> None:
        """Audio could not be heard: the session cannot go on."""
        self._core.ended = True
        failure = error if isinstance(error, TandemError) else InternalError("internal error; see the log")
        self._publish(Update(Failed(failure), self.cursors))

    def finalize(self) -> bool:
        """End the utterance now; False when there is none."""
        self._inlet.flush()
        done = self._core.finalize()
        self._carry_out()
        return done

    def clear(self) -> None:
        """Forget running speech."""
        self._inlet.flush()
        self._core.clear()
        self._carry_out()

    def checkpoint(self, number: int) -> None:
        """The text of everything heard so far, then CheckpointReached. InvalidRequest when too many wait."""
        self._inlet.flush()
        self._core.checkpoint(number)
        self._carry_out()

    def update(self, language: str | None, hotwords: tuple[str, ...]) -> None:
        """Language and hotwords for what follows and for the final of running speech."""
        now = self.options
        self.reconfigure(replace(now, recognize=replace(now.recognize, language=language, hotwords=hotwords)))

    def reconfigure(self, options: SessionOptions) -> None:
        """Other options for what follows and for the final of running speech. Raises InvalidRequest."""
        check_options(options.recognize)
        self._inlet.flush()
        try:
            self._core.reconfigure(options)
        except ValueError as error:
            raise InvalidRequest.of("endpoint", str(error)) from error
        self._carry_out()

    def stop(self, reason: EndReason = EndReason.CLIENT) -> None:
        """No more audio: the rest is decoded, then the session ends."""
        if not self._stopped:
            self._stopped = True
            self._inlet.flush()
            self._core.hear(_NOTHING, self._inlet.ears.finish(), last=True)
            self._core.stop(reason)
            self._carry_out()

    def tick(self) -> None:
        """Timers; called a few times a second."""
        reason = self._core.tick()
        if reason is not None:
            self.stop(reason)
        self._carry_out()

    def touch(self) -> None:
        """A client came back; what it had sent is counted as received."""
        self._inlet.flush()
        self._core.touch()

    def close(self) -> None:
        """Drop everything at once."""
        self._stopped = True
        self._inlet.close()
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()
        self._backend.close()
        if self._speakers is not None:
            self._speakers.close()

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
                if self._speakers is not None:
                    self._speakers.listen(job)
        for index in effects.released:
            self._backend.release(index)
        for update in effects.updates:
            self._publish(update)

    async def _run(self, job: DecodeJob) -> None:
        try:
            answer = await self._answer(job)
        except TandemError as error:
            log.info("session %s: %s of utterance %d: %s", self.id, job.kind.value, job.index, error)
            self._core.failed(job, error)
        except Exception:
            log.exception("session %s: %s of utterance %d failed", self.id, job.kind.value, job.index)
            self._core.failed(job, InternalError("internal error in a decode; see the log"))
        else:
            self._core.done(job, answer)
        self._tasks.pop(job.id, None)
        self._carry_out()

    async def _answer(self, job: DecodeJob) -> Answer:
        with contextlib.ExitStack() as decoding:
            decoding.enter_context(self._load.decoding(job.kind))
            if job.kind is JobKind.CTC:
                return await self._backend.ctc(job)

            def drafted(answer: Decoded) -> None:
                decoding.close()
                self._core.drafted(job, answer)
                self._carry_out()

            return await self._backend.decode(job, drafted)

    def _publish(self, update: Update) -> None:
        event = update.event
        if isinstance(event, Final) and self._speakers is not None:
            update = replace(update, event=self._speakers.final(event))
        elif isinstance(event, Ended) and self._speakers is not None:
            self._speakers.finish(event)
            return
        elif isinstance(event, Failed):
            self.close()
        self.outbox.put(update)

    def _tell(self, event: Refined | Ended) -> None:
        self.outbox.put(Update(event, self.cursors))
