"""Decodes for sessions: the recognizer of the gateway, with the encoder's failures bridged.

The audio of every job stays here until its answer has come. When an encoder dies, the job is sent again,
and the channel picks another one; a job is answered once, so no word is lost or doubled.
"""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace

from gateway.pipeline import Recognizer
from gateway.prepare import Span
from gateway.session.jobs import Abilities, CtcHeard, Decoded, DecodeJob, JobKind
from gateway.session.timeline import ctc_pieces
from gateway.session.utterance import SAMPLE_RATE
from tandem.errors import Overloaded, Unavailable
from tandem.results import Segment

_CTC_TIMEOUT = 5.0
_FIRST_DELAY = 0.05
_MAX_DELAY = 1.0


class RecognizerBackend:
    """Jobs through the gateway's recognizer. A final is retried for `final_timeout` seconds."""

    def __init__(self, recognizer: Recognizer, final_timeout: float) -> None:
        self._recognizer = recognizer
        self._final_timeout = final_timeout
        self._name = uuid.uuid4().hex[:8]

    @property
    def abilities(self) -> Abilities:
        info = self._recognizer.model.info
        return Abilities(ctc=self._recognizer.model.ctc_tokenizer is not None, max_segment=info.max_segment)

    async def ctc(self, job: DecodeJob) -> CtcHeard:
        model = self._recognizer.model
        posteriors = await self._recognizer.ctc(job.samples, self._id(job), _CTC_TIMEOUT)
        if posteriors is None or model.ctc_tokenizer is None:
            return CtcHeard(())
        frame = round(model.info.frame_shift * SAMPLE_RATE)
        return CtcHeard(ctc_pieces(posteriors, model.ctc_tokenizer, job.start, frame))

    async def decode(self, job: DecodeJob) -> Decoded:
        if job.kind is not JobKind.FINAL:
            return await self._once(job)
        loop = asyncio.get_running_loop()
        give_up, delay = loop.time() + self._final_timeout, _FIRST_DELAY
        while True:
            try:
                return await self._once(job)
            except (Unavailable, Overloaded) as error:
                if loop.time() + delay > give_up:
                    raise
                await asyncio.sleep(error.retry_after or delay)
                delay = min(2 * delay, _MAX_DELAY)

    async def _once(self, job: DecodeJob) -> Decoded:
        # Voices are asked for by the session's speaker tracker, of finals only; sentences of several speakers
        # are cut between words.
        words = job.kind is JobKind.FINAL and (job.options.word_times or job.options.speakers)
        options = replace(job.options, speakers=False, word_times=words)
        transcribed = await self._recognizer.transcribe_span(
            job.samples, Span(0, len(job.samples)), options, self._id(job), job.previous_text
        )
        return Decoded(shifted(transcribed.segment, job.start / SAMPLE_RATE))

    def _id(self, job: DecodeJob) -> str:
        prefix = job.options.request_id or self._name
        return f"{prefix}/{job.index}.{job.id}"


def shifted(segment: Segment, seconds: float) -> Segment:
    """The segment with all times moved by `seconds`."""
    words = tuple(replace(word, start=word.start + seconds, end=word.end + seconds) for word in segment.words)
    return replace(segment, words=words, start=segment.start + seconds, end=segment.end + seconds)
