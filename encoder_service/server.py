"""tandem.encoder.v1.EncoderService over gRPC."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from encoder_service import responses
from encoder_service.live_stream import LiveMemory, LiveStream
from encoder_service.loaded import LoadedEncoder
from encoder_service.messages import EncodedAudio, EncodeItem
from encoder_service.requests import InTime, ctc_output, first, read_samples, read_segment, read_targets
from tandem.decoder.v1 import decoder_pb2
from tandem.encoder.v1 import encoder_pb2 as pb
from tandem.encoder.v1 import encoder_pb2_grpc
from tandem.errors import CapabilityMissing, InvalidRequest, TandemError, Unavailable
from tandem.rpc import handlers
from tandem.rpc.tensors import CHUNK_BYTES

SERVICE = "tandem.encoder.v1.EncoderService"


class EncoderServicer(encoder_pb2_grpc.EncoderServiceServicer):
    """Answers Unavailable until `loaded` is set.

    `receive_timeout`: seconds that a caller of Encode or Transcribe has for each message of its audio.
    """

    def __init__(
        self,
        live_memory: LiveMemory | None = None,
        is_stopping: Callable[[], bool] = lambda: False,
        receive_timeout: float = 30.0,
    ) -> None:
        self.loaded: LoadedEncoder | None = None
        self.live_memory, self.is_stopping = live_memory or LiveMemory(), is_stopping
        self._receive_timeout = receive_timeout

    @handlers.streaming
    async def Encode(
        self, request_iterator: AsyncIterator[pb.EncodeRequest], context: handlers.Context
    ) -> AsyncIterator[pb.EncodeResponse]:
        loaded = self._ready()
        stream = InTime(aiter(request_iterator), self._receive_timeout)
        config = (await first(stream)).config
        self._admit(config.audio)
        samples, _ = await read_samples(config.audio, stream, self._max_samples())
        item = EncodeItem(
            samples,
            ctc_output(config.ctc),
            encoder_out=config.encoder_out,
            speakers=config.speaker_embeds,
        )
        for response in responses.encode_responses(await loaded.encodings.encode(item)):
            yield response

    @handlers.streaming
    async def Transcribe(
        self, request_iterator: AsyncIterator[pb.TranscribeRequest], context: handlers.Context
    ) -> AsyncIterator[pb.TranscribeResponse]:
        loaded = self._ready()
        stream = aiter(request_iterator)
        arriving = InTime(stream, self._receive_timeout)
        config = (await first(arriving)).config
        if loaded.decoder is None and not config.ctc_only:
            raise CapabilityMissing("this encoder was started without a decoder")
        self._admit(config.audio)
        samples, stays_open = await read_segment(config, arriving, self._max_samples())
        if stays_open and config.ctc != pb.CTC_MODE_COMPACT:
            raise InvalidRequest.of("config.ctc", "must be compact when targets are to follow")
        with loaded.keep.keeping(len(samples) / loaded.engine.sample_rate if stays_open else 0.0) as keep:
            item = EncodeItem(
                samples,
                ctc_output(config.ctc),
                embeds=not config.ctc_only,
                speakers=config.speaker_embeds,
                keep_ctc=stays_open and keep,
                urgent=config.urgent,
            )
            encoded = await loaded.encodings.encode(item)
            timing = pb.TranscribeTiming(encode=responses.timing(encoded))
            at_once = config.HasField("whole_audio")
            answer = _answer_at_once if at_once else _answer_in_parts
            async for response in answer(loaded, config, encoded.audio, timing, context):
                yield response
            if stays_open:
                async for response in _answer_targets(loaded, encoded.audio, stream):
                    yield response
            if not at_once:
                yield pb.TranscribeResponse(timing=timing)

    @handlers.streaming
    async def TranscribeLive(
        self, request_iterator: AsyncIterator[pb.TranscribeLiveRequest], context: handlers.Context
    ) -> AsyncIterator[pb.TranscribeLiveResponse]:
        stream = LiveStream(self._ready(), self.live_memory, self.is_stopping)
        async with contextlib.aclosing(stream.answers(request_iterator)) as answers:
            async for answer in answers:
                yield answer

    @handlers.unary
    async def GetModelInfo(
        self, request: pb.GetModelInfoRequest, context: handlers.Context
    ) -> pb.GetModelInfoResponse:
        return self._ready().info

    @handlers.streaming
    async def GetTokenizers(
        self, request: pb.GetTokenizersRequest, context: handlers.Context
    ) -> AsyncIterator[pb.GetTokenizersResponse]:
        for path in self._ready().tokenizer_files:
            data = path.read_bytes()
            for offset in range(0, max(1, len(data)), CHUNK_BYTES):
                name = path.name if offset == 0 else ""
                yield pb.GetTokenizersResponse(file_name=name, data=data[offset : offset + CHUNK_BYTES])

    @handlers.unary
    async def GetLoad(self, request: pb.GetLoadRequest, context: handlers.Context) -> pb.GetLoadResponse:
        load = self._ready().batcher.load()
        return pb.GetLoadResponse(
            queued_audio_seconds=load.queued_seconds,
            running_audio_seconds=load.running_seconds,
            audio_seconds_per_second=load.seconds_per_second,
            max_queued_audio_seconds=load.max_queued_seconds,
            waiting_requests=load.waiting_requests,
        )

    def _ready(self) -> LoadedEncoder:
        if self.loaded is None:
            raise Unavailable("the encoder is loading its model", retry_after=1.0)
        return self.loaded

    def _admit(self, audio: pb.AudioConfig) -> None:
        """Refuse announced audio that the queue has no room for before it is sent."""
        loaded = self._ready()
        if audio.HasField("num_samples"):
            loaded.batcher.admit(audio.num_samples / loaded.engine.sample_rate)

    def _max_samples(self) -> int:
        engine = self._ready().engine
        return int(engine.config.max_segment_seconds * engine.sample_rate)


async def _answer_in_parts(
    loaded: LoadedEncoder,
    config: pb.TranscribeConfig,
    audio: EncodedAudio,
    timing: pb.TranscribeTiming,
    context: handlers.Context,
) -> AsyncIterator[pb.TranscribeResponse]:
    """What one encoded segment is known by, each part as soon as it is; adds the decoder's to its timing."""
    for response in responses.ctc_responses(audio):
        yield response
    if not config.ctc_only:
        async for tokens in loaded.decode(config, audio, timing, context.time_remaining()):
            yield pb.TranscribeResponse(tokens=tokens)


async def _answer_at_once(
    loaded: LoadedEncoder,
    config: pb.TranscribeConfig,
    audio: EncodedAudio,
    timing: pb.TranscribeTiming,
    context: handlers.Context,
) -> AsyncIterator[pb.TranscribeResponse]:
    """The same in two messages: that it is encoded, and the rest."""
    async with _begun(loaded, config, audio, timing, context) as decoding:
        yield pb.TranscribeResponse(header=responses.header(audio))
        tokens = await decoding if decoding is not None else None
        answer = responses.ctc_answer(audio)
        if tokens is not None:
            answer.tokens.CopyFrom(tokens)
    answer.timing.CopyFrom(timing)
    yield pb.TranscribeResponse(answer=answer)


@contextlib.asynccontextmanager
async def _begun(
    loaded: LoadedEncoder,
    config: pb.TranscribeConfig,
    audio: EncodedAudio,
    timing: pb.TranscribeTiming,
    context: handlers.Context,
) -> AsyncIterator[asyncio.Task[decoder_pb2.GenerateResponse] | None]:
    """The decoder's answer, once the prompt is on its way; None where none is wanted.

    The segments of a batch are here at the same time: what they send now goes together, and before anything
    else is made of them.
    """
    if config.ctc_only:
        yield None
        return
    sent = asyncio.Event()
    answer = loaded.whole_answer(config, audio, timing, context.time_remaining(), sent.set)
    decoding = asyncio.create_task(answer)
    decoding.add_done_callback(lambda _: sent.set())
    try:
        await sent.wait()
        yield decoding
    finally:
        decoding.cancel()
        with contextlib.suppress(asyncio.CancelledError, TandemError):
            await decoding


async def _answer_targets(
    loaded: LoadedEncoder, audio: EncodedAudio, stream: AsyncIterator[pb.TranscribeRequest]
) -> AsyncIterator[pb.TranscribeResponse]:
    """Exact log-probabilities of the targets that the caller names, if it does."""
    targets = await read_targets(stream, loaded.info.ctc_vocab_size)
    if targets and audio.kept is not None and loaded.targets is not None:
        log_probs = await asyncio.to_thread(loaded.targets.log_probs, audio.kept, targets)
        for response in responses.target_responses(log_probs):
            yield response
