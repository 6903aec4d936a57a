"""One recording from bytes to transcript: decode, cut at pauses, transcribe side by side, assemble."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gateway.backends.encoder import EncoderBackend, Samples, SegmentRequest, SegmentResult
from gateway.model import ServedModel
from gateway.prepare import Preparer, Span
from gateway.speakers.offline import name_speakers
from gateway.text.budget import output_budget
from gateway.text.clean import clean_transcript
from gateway.text.ctc_text import greedy_text, has_speech
from gateway.text.posteriors import CtcPosteriors
from gateway.text.prompt import Prompt, PromptOptions
from gateway.text.repetition import collapse_repetitions
from gateway.text.script import join_texts
from tandem.errors import CapabilityMissing, LimitExceeded, Overloaded
from tandem.results import RecognizeOptions, Segment, TimestampSource, Timing, Transcript

SAMPLE_RATE = 16_000
_MAX_OVERLOAD_RETRIES = 8


@dataclass(frozen=True, slots=True)
class PipelineLimits:
    """Bounds of one recognition: a long file must not fill the encoder's queue alone."""

    max_parallel_segments: int = 64


class Recognizer:
    """Recognises recordings with one served model."""

    def __init__(
        self,
        model: ServedModel,
        encoder: EncoderBackend,
        preparer: Preparer,
        limits: PipelineLimits | None = None,
    ) -> None:
        self.model = model
        self._encoder = encoder
        self._preparer = preparer
        self._limits = limits or PipelineLimits()

    async def recognize(
        self,
        audio: bytes | Path,
        options: RecognizeOptions,
        on_segment: Callable[[Segment], None] | None = None,
    ) -> Transcript:
        """The transcript of one recording in its container. Raises typed errors of every tier.

        `on_segment` gets every segment as soon as it and all before it are transcribed; what is found out
        about the whole recording (speakers) may still be missing in it.
        """
        started = time.perf_counter()
        request_id = options.request_id or uuid.uuid4().hex[:16]
        if options.speakers and not self.model.info.has_speakers:
            raise CapabilityMissing("the encoder has no speaker model; see GetCapabilities.speakers")
        prepared = await self._preparer.prepare(audio, options, self.model.info.max_segment)
        results = await self._transcribe_all(
            prepared.samples, prepared.spans, options, request_id, on_segment
        )
        segments = [segment for segment, _ in results if segment.text or options.details]
        clustering = 0.0
        if options.speakers:
            voices = [result.voices.shifted(segment.start) for segment, result in results if result.voices]
            named, clustering = await name_speakers(segments, voices, options.num_speakers)
            segments = list(named)
        timing = Timing(
            total=time.perf_counter() - started,
            audio_decode=prepared.decode_seconds,
            vad=prepared.vad_seconds,
            encode_queue=sum(result.encode_queue for _, result in results),
            encode=sum(result.encode for _, result in results),
            decode=sum(result.decode for _, result in results),
            speakers=clustering + sum(result.speakers for _, result in results),
        )
        return Transcript(
            text=join_texts(segment.text for segment in segments),
            segments=tuple(segments),
            duration=len(prepared.samples) / SAMPLE_RATE,
            timestamp_source=TimestampSource.NONE,
            language=options.language,
            timing=timing,
            request_id=request_id,
        )

    async def ctc(self, samples: Samples, request_id: str, timeout: float) -> CtcPosteriors | None:
        """What the CTC branch alone hears in float32 samples [n]; no language model involved."""
        return await self._encoder.ctc(samples, request_id, timeout)

    async def _transcribe_all(
        self,
        samples: Samples,
        spans: Sequence[Span],
        options: RecognizeOptions,
        request_id: str,
        on_segment: Callable[[Segment], None] | None,
    ) -> list[tuple[Segment, SegmentResult]]:
        gate = asyncio.Semaphore(self._limits.max_parallel_segments)

        async def one(index: int, span: Span) -> tuple[Segment, SegmentResult]:
            async with gate:
                return await self.transcribe_span(samples, span, options, f"{request_id}/{index}")

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(i, span)) for i, span in enumerate(spans)]
                for task in tasks:
                    segment, _ = await task
                    if on_segment is not None and segment.text:
                        on_segment(segment)
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
    ) -> tuple[Segment, SegmentResult]:
        """One segment of `samples`, with times from their start; its text continues `previous_text`."""
        duration = (span.end - span.start) / SAMPLE_RATE
        if duration > self.model.info.max_segment:
            limit = self.model.info.max_segment
            raise LimitExceeded(f"a segment of {duration:.1f} s exceeds the model's {limit:.0f} s; use vad")
        request = SegmentRequest(
            samples=samples[span.start : span.end],
            prompt=self._prompt(options, previous_text),
            max_tokens=options.max_new_tokens or output_budget(duration),
            request_id=request_id,
            speakers=options.speakers,
        )
        result = await self._send(request)
        if options.hotwords and self._is_silent(result):
            # Long hotword lists are read out in silence; without them the prompt asks for nothing.
            plain = replace(request, prompt=self._prompt(replace(options, hotwords=()), previous_text))
            result = await self._send(plain)
            request = plain
        return self._segment(span, request, result, options, previous_text), result

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

    async def _send(self, request: SegmentRequest) -> SegmentResult:
        """Admitted work waits out a full encoder queue instead of failing half-way through a file."""
        for _ in range(_MAX_OVERLOAD_RETRIES):
            try:
                return await self._encoder.transcribe(request, ctc=self.model.info.has_ctc)
            except Overloaded as error:
                await asyncio.sleep(error.retry_after or 0.5)
        return await self._encoder.transcribe(request, ctc=self.model.info.has_ctc)

    def _segment(
        self,
        span: Span,
        request: SegmentRequest,
        result: SegmentResult,
        options: RecognizeOptions,
        previous_text: str,
    ) -> Segment:
        ctc_text = None
        if self.model.ctc_tokenizer is not None and result.posteriors is not None:
            ctc_text = greedy_text(result.posteriors, self.model.ctc_tokenizer)
        text = clean_transcript(previous_text + self.model.detokenizer.decode(result.token_ids))
        segment = Segment(
            text=collapse_repetitions(text, ctc_text),
            start=span.start / SAMPLE_RATE,
            end=span.end / SAMPLE_RATE,
        )
        if not options.details:
            return segment
        return replace(
            segment,
            prompt_token_ids=tuple(request.prompt.token_ids(result.num_embeds)),
            token_ids=result.token_ids,
            ctc_text=ctc_text,
        )
