"""Decodes for sessions: the recognizer of the gateway, with the encoder's failures bridged.

A session sends its audio to one encoder, each sample once. The audio of every job stays here until its answer
has come. When an encoder dies, the next job goes to another one with all of its utterance; a final that was
out is asked for again by a call of its own. A job is answered once, so no word is lost or doubled.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable
from dataclasses import replace

from gateway.backends.live import MIN_SAMPLES, LiveLine, Part
from gateway.backends.segment_call import SegmentRequest, SegmentResult
from gateway.pipeline import OnText, Recognizer, Transcribe
from gateway.prepare import Span
from gateway.session.jobs import Abilities, CtcHeard, Decoded, DecodeJob, JobKind
from gateway.session.timeline import ctc_pieces
from gateway.session.utterance import SAMPLE_RATE
from tandem.errors import CapabilityMissing, Overloaded, Unavailable
from tandem.results import Segment

_CTC_TIMEOUT = 5.0
# The encoder keeps for twice as long what words are timed by.
_WORDS_TIMEOUT = 5.0
_FIRST_DELAY = 0.05
_MAX_DELAY = 1.0


class RecognizerBackend:
    """Jobs through the gateway's recognizer. A final is retried for `final_timeout` seconds."""

    def __init__(self, recognizer: Recognizer, final_timeout: float) -> None:
        self._recognizer = recognizer
        self._final_timeout = final_timeout

    @property
    def abilities(self) -> Abilities:
        info = self._recognizer.model.info
        return Abilities(ctc=self._recognizer.model.ctc_tokenizer is not None, max_segment=info.max_segment)

    def session(self) -> RecognizerSession:
        return RecognizerSession(self._recognizer, self._final_timeout)


class RecognizerSession:
    """The jobs of one session."""

    def __init__(self, recognizer: Recognizer, final_timeout: float) -> None:
        self._recognizer = recognizer
        self._final_timeout = final_timeout
        self._line = LiveLine(recognizer.live_link)
        self._name = uuid.uuid4().hex[:8]

    async def ctc(self, job: DecodeJob) -> CtcHeard:
        model = self._recognizer.model
        if model.ctc_tokenizer is None or job.end - job.start < MIN_SAMPLES:
            return CtcHeard(())
        try:
            async with asyncio.timeout(_CTC_TIMEOUT):
                path = await self._line.current().path(_part(job), urgent=job.urgent)
        except TimeoutError as error:
            raise Unavailable("the encoder takes too long") from error
        frame = round(model.info.frame_shift * SAMPLE_RATE)
        return CtcHeard(ctc_pieces(path.token_ids, path.frames, model.ctc_tokenizer, job.start, frame))

    async def decode(self, job: DecodeJob, drafted: Callable[[Decoded], None]) -> Decoded:
        if job.kind is not JobKind.FINAL:
            return await self._attempt(job, self._live(job))

        async def on_text(segment: Segment) -> None:
            if not job.words_wanted.is_set():
                drafted(Decoded(shifted(segment, job.start / SAMPLE_RATE)))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_WORDS_TIMEOUT):
                    await job.words_wanted.wait()

        loop = asyncio.get_running_loop()
        give_up, delay = loop.time() + self._final_timeout, _FIRST_DELAY
        transcribe = self._live(job)
        while True:
            try:
                return await self._attempt(job, transcribe, on_text)
            except (Unavailable, Overloaded, CapabilityMissing) as error:
                older = isinstance(error, CapabilityMissing)
                if loop.time() + delay > give_up or (older and transcribe is None):
                    raise
                await asyncio.sleep(error.retry_after or delay)
                delay = min(2 * delay, _MAX_DELAY)
                # Whichever encoder is there now.
                transcribe = None

    def release(self, index: int) -> None:
        self._line.release(index)

    def close(self) -> None:
        self._line.close()

    async def _attempt(
        self, job: DecodeJob, transcribe: Transcribe | None, on_text: OnText | None = None
    ) -> Decoded:
        # Voices are asked for by the session's speaker tracker, of finals only; sentences of several speakers
        # are cut between words.
        words = job.kind is JobKind.FINAL and (job.options.word_times or job.options.speakers)
        options = replace(job.options, speakers=False, word_times=words)
        samples = job.samples
        transcribed = await self._recognizer.transcribe_span(
            samples,
            Span(0, len(samples)),
            options,
            self._id(job),
            job.previous_text,
            transcribe=transcribe,
            on_text=on_text if words else None,
            urgent=job.urgent,
        )
        return Decoded(shifted(transcribed.segment, job.start / SAMPLE_RATE))

    def _live(self, job: DecodeJob) -> Transcribe | None:
        """Asks for the job's audio where the session's audio is; None where it is too short for that."""
        if job.end - job.start < MIN_SAMPLES:
            return None

        async def transcribe(request: SegmentRequest) -> SegmentResult:
            ctc = self._recognizer.model.info.has_ctc
            return await self._line.current().transcribe(_part(job), request, ctc=ctc)

        return transcribe

    def _id(self, job: DecodeJob) -> str:
        prefix = job.options.request_id or self._name
        return f"{prefix}/{job.index}.{job.id}"


def _part(job: DecodeJob) -> Part:
    return Part(job.index, job.audio, job.start, job.end)


def shifted(segment: Segment, seconds: float) -> Segment:
    """The segment with all times moved by `seconds`."""
    words = tuple(replace(word, start=word.start + seconds, end=word.end + seconds) for word in segment.words)
    return replace(segment, words=words, start=segment.start + seconds, end=segment.end + seconds)
