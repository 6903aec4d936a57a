"""One call of TranscribeLive: the segments of a live caller, and the spans of them that it asks for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass

import numpy as np

from encoder_service import responses
from encoder_service.batcher import Encoded
from encoder_service.live_segment import LiveSegment, LiveSpan
from encoder_service.loaded import LoadedEncoder
from encoder_service.messages import CtcOutput, EncodedAudio, EncodeItem
from encoder_service.requests import TARGETS_SECONDS, checked_targets, ctc_output
from tandem.encoder.v1 import encoder_pb2 as pb
from tandem.errors import InternalError, InvalidRequest, LimitExceeded, Overloaded, TandemError
from tandem.rpc.status import to_status
from tandem.rpc.tensors import WireTensor, to_message

log = logging.getLogger("tandem.encoder.live")

_CHECK_SECONDS = 0.5


@dataclass(slots=True)
class LiveMemory:
    """Seconds of live audio that all streams of this encoder keep, at most `max_seconds`."""

    max_seconds: float = 20_000.0
    seconds: float = 0.0

    def take(self, seconds: float) -> None:
        """Raises Overloaded when there is no room."""
        if self.seconds + seconds > self.max_seconds:
            raise Overloaded(f"{self.seconds:.0f} s of live audio are kept already", retry_after=1.0)
        self.seconds += seconds

    def give_back(self, seconds: float) -> None:
        self.seconds = max(0.0, self.seconds - seconds)


@dataclass(frozen=True, slots=True)
class LiveLimits:
    """Of one stream: segments kept, spans unanswered and answers not taken yet at a time, and seconds without
    a request. While so many answers wait for the caller no request is read, which the transport tells it.
    """

    segments: int = 8
    spans: int = 16
    answers: int = 16
    idle: float = 60.0


class LiveStream:
    """`is_stopping`: the encoder drains, so that the stream ends as soon as every span is answered."""

    def __init__(
        self,
        loaded: LoadedEncoder,
        memory: LiveMemory,
        is_stopping: Callable[[], bool],
        limits: LiveLimits | None = None,
    ) -> None:
        self._loaded, self._memory, self._is_stopping = loaded, memory, is_stopping
        self._limits = limits or LiveLimits()
        self._segments: dict[int, LiveSegment] = {}
        self._spans: dict[int, asyncio.Task[None]] = {}
        self._targets: dict[int, asyncio.Future[list[int]]] = {}
        self._answers: asyncio.Queue[pb.TranscribeLiveResponse | None] = asyncio.Queue()
        self._taken = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._heard_at = self._loop.time()

    async def answers(
        self, requests: AsyncIterator[pb.TranscribeLiveRequest]
    ) -> AsyncGenerator[pb.TranscribeLiveResponse, None]:
        """Until the caller half-closes and every span is answered, the stream idles, or the tier drains.

        Raises InvalidRequest, LimitExceeded and Overloaded for audio; the errors of spans are answers.
        """
        reading = asyncio.create_task(self._read(requests))
        watching = asyncio.create_task(self._watch(reading))
        try:
            while (answer := await self._answers.get()) is not None:
                self._taken.set()
                yield answer
            if not reading.cancelled():
                reading.result()
        finally:
            for task in (reading, watching, *self._spans.values()):
                task.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read(self, requests: AsyncIterator[pb.TranscribeLiveRequest]) -> None:
        try:
            async for request in requests:
                await self._room()
                self._handle(request)
            while self._spans:
                await asyncio.wait(self._spans.values())
        finally:
            # Not where answers are given out: a caller that takes none holds that up for as long as it likes.
            for number in list(self._segments):
                self._release(number)
            self._answers.put_nowait(None)

    async def _room(self) -> None:
        """Until the caller has taken enough of its answers."""
        while self._answers.qsize() >= self._limits.answers:
            self._taken.clear()
            await self._taken.wait()

    async def _watch(self, reading: asyncio.Task[None]) -> None:
        """Ends a stream that idles, and any quiet one when the tier drains."""
        while not reading.done():
            await asyncio.sleep(_CHECK_SECONDS)
            idle = self._loop.time() - self._heard_at >= self._limits.idle
            if not self._spans and (idle or self._is_stopping()):
                reading.cancel()
                return

    def _handle(self, request: pb.TranscribeLiveRequest) -> None:
        self._heard_at = self._loop.time()
        for number in request.cancel:
            task = self._spans.get(number)
            if task is not None:
                task.cancel()
        for number in request.release:
            self._release(number)
        if request.audio:
            self._add(request.segment, request.audio)
        if request.HasField("span"):
            self._ask(request.segment, request.span)
        if request.HasField("targets"):
            self._name(request.targets)

    # Audio

    def _add(self, number: int, audio: bytes) -> None:
        if len(audio) % 2:
            raise InvalidRequest.of("audio", f"{len(audio)} bytes are not whole samples")
        engine = self._loaded.engine
        segment = self._segments.get(number)
        if segment is None:
            if len(self._segments) >= self._limits.segments:
                raise LimitExceeded(f"{len(self._segments)} segments are kept; release one first")
            segment = LiveSegment(engine.frontend.window_size, engine.frontend.hop)
        seconds = len(audio) / 2 / engine.sample_rate
        longest = engine.config.max_segment_seconds + 1.0
        if segment.length / engine.sample_rate + seconds > longest:
            raise LimitExceeded(f"a live segment may have {longest:.0f} s")
        self._memory.take(seconds)
        self._segments[number] = segment
        segment.add(np.frombuffer(audio, dtype="<i2"))

    def _release(self, number: int) -> None:
        segment = self._segments.pop(number, None)
        if segment is not None:
            self._memory.give_back(segment.length / self._loaded.engine.sample_rate)

    # Spans

    def _ask(self, number: int, asked: pb.LiveSpan) -> None:
        if asked.id in self._spans:
            raise InvalidRequest.of("span.id", f"{asked.id} is the id of a span without an answer yet")
        if len(self._spans) >= self._limits.spans:
            raise LimitExceeded(f"{len(self._spans)} spans wait for their answer")
        segment = self._segments.get(number)
        if segment is None:
            raise InvalidRequest.of("span", f"segment {number} has no audio")
        try:
            span = segment.span(asked.start, asked.end)
        except ValueError as error:
            raise InvalidRequest.of("span", str(error)) from error
        self._spans[asked.id] = asyncio.create_task(self._answer(asked, span))
        if asked.targets_follow:
            self._targets[asked.id] = self._loop.create_future()

    def _name(self, targets: pb.LiveTargets) -> None:
        named = self._targets.get(targets.id)
        if named is not None and not named.done():
            token_ids = list(targets.token_ids)
            if token_ids:
                checked_targets(token_ids, self._loaded.info.ctc_vocab_size)
            named.set_result(token_ids)

    async def _answer(self, asked: pb.LiveSpan, span: LiveSpan) -> None:
        kept_seconds = len(span) / self._loaded.engine.sample_rate if asked.targets_follow else 0.0
        try:
            with self._loaded.keep.keeping(kept_seconds) as keep:
                encoded = await self._transcribed(asked, span, keep_ctc=asked.targets_follow and keep)
                if asked.targets_follow:
                    await self._align(asked.id, encoded.audio)
        except TandemError as error:
            self._answers.put_nowait(_failed(asked.id, error))
        except Exception:
            log.exception("live span %d failed", asked.id)
            unknown = InternalError("internal error in a live span; see the log")
            self._answers.put_nowait(_failed(asked.id, unknown))
        finally:
            del self._spans[asked.id]
            self._targets.pop(asked.id, None)

    async def _transcribed(self, asked: pb.LiveSpan, span: LiveSpan, *, keep_ctc: bool) -> Encoded:
        """Answers the span."""
        config = asked.config if asked.HasField("config") else pb.TranscribeConfig(ctc_only=True)
        output = ctc_output(config.ctc)
        if output is CtcOutput.DENSE:
            raise InvalidRequest.of("span.config.ctc", "dense posteriors do not come live")
        if asked.targets_follow and output is not CtcOutput.COMPACT:
            raise InvalidRequest.of("span.config.ctc", "must be compact when targets are to follow")
        wanted = CtcOutput.COMPACT if config.ctc_only else output
        item = EncodeItem.of_live(
            span, wanted, embeds=not config.ctc_only, keep_ctc=keep_ctc, urgent=config.urgent
        )
        encoded = await self._loaded.batcher.submit(item)
        answer = _heard(asked.id, encoded, compact=output is CtcOutput.COMPACT)
        if not config.ctc_only:
            if asked.report_encoded:
                self._answers.put_nowait(pb.TranscribeLiveResponse(id=asked.id, encoded=True))
            async for tokens in self._loaded.decode(config, encoded.audio, answer.timing):
                answer.token_ids.extend(tokens.token_ids)
        self._answers.put_nowait(answer)
        return encoded

    async def _align(self, number: int, audio: EncodedAudio) -> None:
        """Answers the targets that the caller names, if it does in time."""
        targets: list[int] = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TARGETS_SECONDS):
                targets = await self._targets[number]
        if not targets:
            return
        answer = pb.TranscribeLiveResponse(id=number)
        if audio.kept is not None and self._loaded.targets is not None:
            log_probs = await asyncio.to_thread(self._loaded.targets.log_probs, audio.kept, targets)
            answer.target_log_probs.CopyFrom(to_message(WireTensor.of(log_probs)))
        self._answers.put_nowait(answer)


def _heard(number: int, encoded: Encoded, *, compact: bool) -> pb.TranscribeLiveResponse:
    """What is known before the decoder's answer."""
    audio = encoded.audio
    answer = pb.TranscribeLiveResponse(
        id=number,
        num_embeds=audio.num_embeds,
        timing=pb.TranscribeTiming(encode=responses.timing(encoded)),
    )
    if audio.compact is not None and compact:
        answer.compact_ctc.CopyFrom(responses.compact_message(audio.compact))
    elif audio.compact is not None:
        answer.path.CopyFrom(responses.path_message(audio.compact))
    return answer


def _failed(number: int, error: TandemError) -> pb.TranscribeLiveResponse:
    return pb.TranscribeLiveResponse(id=number, error=to_status(error).SerializeToString())
