"""One recording from bytes to transcript: decode, cut at pauses, transcribe side by side, assemble."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from gateway.assemble import SegmentWriter
from gateway.audio.types import SAMPLE_RATE, Samples
from gateway.backends.encoder import Encoder, ignore
from gateway.backends.live import LiveLink
from gateway.backends.segment_call import SegmentRequest, SegmentResult
from gateway.gate import SegmentGate
from gateway.model import ServedModel
from gateway.prepare import Preparation, Preparer, Span
from gateway.speakers.offline import name_speakers
from gateway.speakers.types import SegmentEmbeddings
from gateway.telemetry import observe_transcript
from gateway.text.budget import output_budget
from gateway.text.ctc_text import has_speech
from gateway.text.prompt import Prompt, PromptOptions
from tandem.convert import check_options
from tandem.errors import CapabilityMissing, LimitExceeded, Overloaded
from tandem.results import RecognizeOptions, Segment, TimestampSource, Timing, Transcript
from tandem.script import join_texts

_MAX_OVERLOAD_RETRIES = 8


@dataclass(frozen=True, slots=True)
class PipelineLimits:
    """Segments outstanding at the tiers: of one recording, so that a long one leaves room, and of all."""

    of_one_recording: int = 64
    of_all_recordings: int = 768


@dataclass(frozen=True, slots=True)
class Transcribed:
    """One span's segment, what the tiers answered for it, and the seconds its alignment took."""

    segment: Segment
    result: SegmentResult
    align_seconds: float

    @property
    def voices(self) -> SegmentEmbeddings | None:
        """Its voices in the segment's channel, with times from the start of the recording."""
        if self.result.voices is None:
            return None
        return replace(self.result.voices.shifted(self.segment.start), channel=self.segment.channel)


Transcribe = Callable[[SegmentRequest], Awaitable[SegmentResult]]
"""Asks the tiers for one segment."""
OnText = Callable[[Segment], Awaitable[None]]
"""Gets a segment without word times; they are found when this is over."""


@dataclass(frozen=True, slots=True)
class _Listeners:
    """Who is told of a recording before its transcript is complete."""

    on_segment: Callable[[Segment], None] | None
    on_audio: Callable[[float], None] | None

    async def tell(self, begun: asyncio.Queue[asyncio.Task[Transcribed] | None]) -> None:
        """Of every segment, in order, until None comes."""
        while (task := await begun.get()) is not None:
            segment = (await task).segment
            if self.on_segment is not None and segment.text:
                self.on_segment(segment)


class Recognizer:
    """Recognises recordings with one served model."""

    def __init__(
        self,
        model: ServedModel,
        encoder: Encoder,
        preparer: Preparer,
        limits: PipelineLimits | None = None,
    ) -> None:
        self.model = model
        self._encoder = encoder
        self._preparer = preparer
        self._limits = limits or PipelineLimits()
        self._gate = SegmentGate(self._limits.of_all_recordings, lambda: encoder.capacity)

    async def recognize(
        self,
        audio: bytes | Path,
        options: RecognizeOptions,
        on_segment: Callable[[Segment], None] | None = None,
        on_audio: Callable[[float], None] | None = None,
    ) -> Transcript:
        """The transcript of one recording in its container. Raises typed errors of every tier.

        `on_segment` gets every segment as soon as it and all before it are transcribed; what is found out
        about the whole recording (speakers) may still be missing in it. `on_audio` gets the recording's
        seconds as soon as they are known.
        """
        started = time.perf_counter()
        request_id = options.request_id or uuid.uuid4().hex[:16]
        check_options(options)
        if options.speakers and not self.model.info.has_speakers:
            raise CapabilityMissing("the encoder has no speaker model; see GetCapabilities.speakers")
        # Turns are cut between words, so speakers need word times whether or not they are asked for.
        aligned = replace(options, word_times=options.word_times or options.speakers)
        listeners = _Listeners(on_segment, on_audio)
        async with self._preparer.prepare(audio, options, self.model.info.max_segment) as preparation:
            results = await self._transcribe_all(preparation, aligned, request_id, listeners)
            prepared = await preparation.finished()
        segments = [item.segment for item in results if item.segment.text or options.details]
        clustering = 0.0
        if options.speakers:
            voices = [voice for item in results if (voice := item.voices) is not None]
            named, clustering = await name_speakers(segments, voices, options.num_speakers)
            segments = [part if options.word_times else replace(part, words=()) for part in named]
        timing = Timing(
            total=time.perf_counter() - started,
            audio_decode=prepared.decode_seconds,
            vad=prepared.vad_seconds,
            encode_queue=sum(item.result.encode_queue for item in results),
            encode=sum(item.result.encode for item in results),
            decode=sum(item.result.decode for item in results),
            align=sum(item.align_seconds for item in results),
            speakers=clustering + sum(item.result.speakers for item in results),
        )
        transcript = Transcript(
            text=join_texts(segment.text for segment in segments),
            segments=tuple(segments),
            duration=prepared.duration,
            timestamp_source=self._timestamp_source(options),
            language=options.language,
            timing=timing,
            request_id=request_id,
        )
        observe_transcript(transcript)
        return transcript

    def live_link(self) -> LiveLink:
        """A line to one encoder for the audio of a live session."""
        return self._encoder.live()

    async def voices(self, samples: Samples, request_id: str, timeout: float) -> SegmentEmbeddings:
        """Speaker embeddings of windows of samples [n]; no recognizer involved."""
        return await self._encoder.voices(samples, request_id, timeout)

    async def _transcribe_all(
        self, preparation: Preparation, options: RecognizeOptions, request_id: str, listeners: _Listeners
    ) -> list[Transcribed]:
        """Every span is sent as soon as it is found, while the rest of the recording is being decoded."""
        places = asyncio.Semaphore(self._limits.of_one_recording)

        async def one(index: int, span: Span, samples: Samples) -> Transcribed:
            seconds = (span.end - span.start) / SAMPLE_RATE
            async with places, self._gate.segment(seconds) as encoded:
                return await self.transcribe_span(
                    samples, span, options, f"{request_id}/{index}", on_encoded=encoded
                )

        tasks: list[asyncio.Task[Transcribed]] = []
        begun: asyncio.Queue[asyncio.Task[Transcribed] | None] = asyncio.Queue()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(listeners.tell(begun))
                async for span, samples in preparation:
                    tasks.append(group.create_task(one(len(tasks), span, samples)))
                    begun.put_nowait(tasks[-1])
                begun.put_nowait(None)
                if listeners.on_audio is not None:
                    listeners.on_audio((await preparation.finished()).duration)
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures
        return [task.result() for task in tasks]

    async def transcribe_span(
        self,
        samples: Samples,
        span: Span,
        options: RecognizeOptions,
        request_id: str,
        previous_text: str = "",
        on_encoded: Callable[[], None] = ignore,
        transcribe: Transcribe | None = None,
        on_text: OnText | None = None,
        *,
        urgent: bool = False,
    ) -> Transcribed:
        """One segment of `samples`, with times from their start; its text continues `previous_text`.

        `on_encoded` is called when only the decoder has work left, if it comes to that. `transcribe` asks
        the tiers in another way than by a call that brings the samples, and with `on_text`. `urgent`: see
        SegmentRequest.
        """
        duration = (span.end - span.start) / SAMPLE_RATE
        if duration > self.model.info.max_segment:
            limit = self.model.info.max_segment
            raise LimitExceeded(f"a segment of {duration:.1f} s exceeds the model's {limit:.0f} s; use vad")
        writer = SegmentWriter(self.model, span, options, previous_text, request_id)

        async def on_tokens(result: SegmentResult) -> None:
            if on_text is not None and not (options.hotwords and self._is_silent(result)):
                await on_text(writer.draft(result))

        request = SegmentRequest(
            samples=samples[span.start : span.end],
            prompt=self._prompt(options, previous_text),
            max_tokens=options.max_new_tokens or output_budget(duration),
            request_id=request_id,
            speakers=options.speakers,
            name_targets=writer.name_targets if options.word_times else None,
            on_tokens=on_tokens,
            urgent=urgent,
        )
        send = transcribe or partial(self._send, on_encoded=on_encoded)
        result = await send(request)
        if options.hotwords and self._is_silent(result):
            # Long hotword lists are read out in silence; without them the prompt asks for nothing.
            plain = replace(request, prompt=self._prompt(replace(options, hotwords=()), previous_text))
            result = await send(plain)
            request = plain
        return Transcribed(writer.write(request, result), result, writer.seconds)

    def _timestamp_source(self, options: RecognizeOptions) -> TimestampSource:
        aligned = options.word_times and self.model.aligner is not None
        return TimestampSource.CTC if aligned else TimestampSource.NONE

    def _prompt(self, options: RecognizeOptions, previous_text: str) -> Prompt:
        return self.model.prompts.build(
            PromptOptions(options.language, options.hotwords, options.itn, previous_text)
        )

    def _is_silent(self, result: SegmentResult) -> bool:
        tokenizer = self.model.ctc_tokenizer
        return (
            tokenizer is not None
            and result.posteriors is not None
            and not has_speech(result.posteriors, tokenizer)
        )

    async def _send(self, request: SegmentRequest, *, on_encoded: Callable[[], None]) -> SegmentResult:
        """Admitted work waits out a full encoder queue instead of failing half-way through a file."""
        ctc = self.model.info.has_ctc
        for _ in range(_MAX_OVERLOAD_RETRIES):
            try:
                return await self._encoder.transcribe(request, ctc=ctc, on_encoded=on_encoded)
            except Overloaded as error:
                await asyncio.sleep(error.retry_after or 0.5)
        return await self._encoder.transcribe(request, ctc=ctc, on_encoded=on_encoded)
