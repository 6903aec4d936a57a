"""The gateway's client of the encoder tier: segments of audio out, tokens and CTC posteriors in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
import grpc.aio
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway.audio.types import SAMPLE_RATE, Samples, to_pcm16
from gateway.speakers.types import SegmentEmbeddings
from gateway.text.posteriors import CtcPosteriors
from gateway.text.prompt import Prompt, PromptStyle
from tandem.access import Access
from tandem.decoder.v1 import decoder_pb2
from tandem.encoder.v1 import encoder_pb2 as pb
from tandem.encoder.v1 import encoder_pb2_grpc
from tandem.errors import InternalError, Unavailable
from tandem.rpc.channels import connect
from tandem.rpc.durations import seconds
from tandem.rpc.status import from_rpc_error
from tandem.rpc.tensors import CHUNK_BYTES, from_message
from tandem.tensor.v1 import tensor_pb2


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What the gateway needs to know of the checkpoint. Times are seconds."""

    model: str
    model_hash: str
    has_ctc: bool
    ctc_vocab_size: int
    frame_shift: float
    max_segment: float
    prompt_style: PromptStyle
    has_speakers: bool = False


@dataclass(frozen=True, slots=True)
class SegmentRequest:
    """One segment to transcribe: samples [n] at 16 kHz and the prompt around them.

    `speakers` asks for the voices of its windows too.
    """

    samples: Samples
    prompt: Prompt
    max_tokens: int
    request_id: str
    speakers: bool = False


@dataclass(frozen=True, slots=True)
class SegmentResult:
    """Tokens of one segment, its CTC posteriors where the model has them, and seconds per stage.

    `voices`, where asked for, have times from the start of the segment.
    """

    token_ids: tuple[int, ...]
    num_embeds: int
    posteriors: CtcPosteriors | None
    encode_queue: float
    encode: float
    decode: float
    voices: SegmentEmbeddings | None = None
    speakers: float = 0.0


@dataclass(frozen=True, slots=True)
class EncoderLoad:
    """Seconds of audio waiting and running in one encoder, and seconds of audio it encodes per second."""

    seconds: float
    speed: float


class Encoder(Protocol):
    """What the gateway asks of the encoder tier: EncoderBackend, or a pool of them."""

    @property
    def capacity(self) -> float:
        """Seconds of audio that may wait in the tier's queues; known from the first `model_info` on."""

    async def model_info(self, timeout: float = ...) -> ModelInfo: ...

    async def tokenizers(self, timeout: float = ...) -> dict[str, bytes]: ...

    async def transcribe(
        self, request: SegmentRequest, *, ctc: bool, on_encoded: Callable[[], None] = ...
    ) -> SegmentResult: ...

    async def ctc(self, samples: Samples, request_id: str, timeout: float) -> CtcPosteriors | None: ...

    async def voices(self, samples: Samples, request_id: str, timeout: float) -> SegmentEmbeddings: ...

    async def close(self) -> None: ...


def ignore() -> None:
    """Nobody waits for the encoding."""


class EncoderBackend:
    """Calls the encoder target: one address, or a name that resolves to several pods."""

    def __init__(
        self, target: str, options: Sequence[tuple[str, Any]] = (), access: Access | None = None
    ) -> None:
        self._channel = connect(target, options, access)
        self._health: Any = health_pb2_grpc.HealthStub(self._channel)
        self._stub: encoder_pb2_grpc.EncoderServiceAsyncStub = encoder_pb2_grpc.EncoderServiceStub(
            self._channel
        )
        self.capacity = 0.0

    async def model_info(self, timeout: float = 5.0) -> ModelInfo:
        """Raises Unavailable while no encoder is ready."""
        try:
            info, load = await asyncio.gather(
                self._stub.GetModelInfo(pb.GetModelInfoRequest(), timeout=timeout),
                self._stub.GetLoad(pb.GetLoadRequest(), timeout=timeout),
            )
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        self.capacity = load.max_queued_audio_seconds
        return ModelInfo(
            model=info.model,
            model_hash=info.model_hash,
            has_ctc=info.has_ctc,
            ctc_vocab_size=info.ctc_vocab_size,
            frame_shift=seconds(info.frame_shift),
            max_segment=seconds(info.max_segment_duration),
            prompt_style=PromptStyle(info.prompt_style.system_turn, info.prompt_style.think),
            has_speakers=info.has_speakers,
        )

    async def tokenizers(self, timeout: float = 60.0) -> dict[str, bytes]:
        """The tokenizer files of the checkpoint by name."""
        files: dict[str, bytearray] = {}
        name = ""
        try:
            async for piece in self._stub.GetTokenizers(pb.GetTokenizersRequest(), timeout=timeout):
                name = piece.file_name or name
                files.setdefault(name, bytearray()).extend(piece.data)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        return {name: bytes(data) for name, data in files.items()}

    async def load(self, timeout: float) -> EncoderLoad:
        """How busy the encoder is. Raises Unavailable while it loads or drains."""
        try:
            health, load = await asyncio.gather(
                self._health.Check(health_pb2.HealthCheckRequest(), timeout=timeout),
                self._stub.GetLoad(pb.GetLoadRequest(), timeout=timeout),
            )
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        if health.status != health_pb2.HealthCheckResponse.SERVING:
            raise Unavailable("the encoder does not want requests")
        busy = load.queued_audio_seconds + load.running_audio_seconds
        self.capacity = load.max_queued_audio_seconds
        return EncoderLoad(busy, load.audio_seconds_per_second)

    async def transcribe(
        self, request: SegmentRequest, *, ctc: bool, on_encoded: Callable[[], None] = ignore
    ) -> SegmentResult:
        """Encode and decode one segment. Raises the tier's own typed error.

        `on_encoded` is called when only the decoder has work left; not when the call fails before.
        """
        call = self._stub.Transcribe(_messages(request, ctc))
        try:
            return await _collect(call, len(request.samples) / SAMPLE_RATE, on_encoded)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        finally:
            call.cancel()

    async def ctc(self, samples: Samples, request_id: str, timeout: float) -> CtcPosteriors | None:
        """CTC posteriors of samples [n], no decoder involved. Raises the tier's own typed error."""
        call = self._stub.Transcribe(_ctc_messages(samples, request_id), timeout=timeout)
        posteriors = None
        try:
            async for response in call:
                if response.HasField("compact_ctc"):
                    posteriors = posteriors_of(response.compact_ctc)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        finally:
            call.cancel()
        return posteriors

    async def voices(self, samples: Samples, request_id: str, timeout: float) -> SegmentEmbeddings:
        """Voices of samples [n] alone, times from their start. Raises the tier's own typed error."""
        call = self._stub.Transcribe(_voice_messages(samples, request_id), timeout=timeout)
        try:
            async for response in call:
                if response.HasField("speakers"):
                    return voices_of(response.speakers, len(samples) / SAMPLE_RATE)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        finally:
            call.cancel()
        raise Unavailable("the encoder ended the call without a result")

    async def close(self) -> None:
        await self._channel.close()


def _format(samples: Samples) -> pb.AudioConfig:
    """Samples travel as they are: in most recordings a sample has 16 bits."""
    pcm = samples.dtype == np.int16
    kind = pb.SAMPLE_FORMAT_S16LE if pcm else pb.SAMPLE_FORMAT_F32LE
    return pb.AudioConfig(format=kind, num_samples=len(samples))


def _audio(samples: Samples) -> Iterator[pb.TranscribeRequest]:
    little = samples.dtype.newbyteorder("<")
    data = np.ascontiguousarray(samples, little).view(np.uint8).data
    for offset in range(0, len(data), CHUNK_BYTES):
        yield pb.TranscribeRequest(audio=bytes(data[offset : offset + CHUNK_BYTES]))


async def _ctc_messages(samples: Samples, request_id: str) -> AsyncIterator[pb.TranscribeRequest]:
    # Live audio came as 16 bits a sample, and is sent several times a second.
    pcm = to_pcm16(samples)
    yield pb.TranscribeRequest(
        config=pb.TranscribeConfig(
            request_id=request_id,
            audio=_format(pcm),
            ctc=pb.CTC_MODE_COMPACT,
            ctc_only=True,
        )
    )
    for message in _audio(pcm):
        yield message


async def _voice_messages(samples: Samples, request_id: str) -> AsyncIterator[pb.TranscribeRequest]:
    yield pb.TranscribeRequest(
        config=pb.TranscribeConfig(
            request_id=request_id,
            audio=_format(samples),
            ctc_only=True,
            speaker_embeds=True,
        )
    )
    for message in _audio(samples):
        yield message


async def _messages(request: SegmentRequest, ctc: bool) -> AsyncIterator[pb.TranscribeRequest]:
    yield pb.TranscribeRequest(
        config=pb.TranscribeConfig(
            request_id=request.request_id,
            audio=_format(request.samples),
            ctc=pb.CTC_MODE_COMPACT if ctc else pb.CTC_MODE_NONE,
            prefix_token_ids=request.prompt.prefix_token_ids,
            suffix_token_ids=request.prompt.suffix_token_ids,
            sampling=decoder_pb2.SamplingParams(max_tokens=request.max_tokens),
            speaker_embeds=request.speakers,
            final_only=True,
        )
    )
    for message in _audio(request.samples):
        yield message


async def _collect(
    responses: AsyncIterable[pb.TranscribeResponse], duration: float, on_encoded: Callable[[], None]
) -> SegmentResult:
    tokens: list[int] = []
    num_embeds, posteriors, voices = 0, None, None
    async for response in responses:
        kind = response.WhichOneof("payload")
        if kind == "header":
            num_embeds = response.header.num_embeds
            on_encoded()
        elif kind == "compact_ctc":
            posteriors = posteriors_of(response.compact_ctc)
        elif kind == "speakers":
            voices = voices_of(response.speakers, duration)
        elif kind == "tokens":
            tokens.extend(response.tokens.token_ids)
        elif kind == "timing":
            timing = response.timing
            return SegmentResult(
                token_ids=tuple(tokens),
                num_embeds=num_embeds,
                posteriors=posteriors,
                encode_queue=seconds(timing.encode.queue),
                encode=seconds(timing.encode.frontend) + seconds(timing.encode.compute),
                decode=seconds(timing.decoder_round_trip),
                voices=voices,
                speakers=seconds(timing.encode.speakers),
            )
    raise Unavailable("the encoder ended the call without a result")


def posteriors_of(message: tensor_pb2.CompactLogProbs) -> CtcPosteriors:
    """Checked numpy views of compact posteriors, float32 whatever they travelled in."""
    return CtcPosteriors(
        top_ids=from_message(message.top_ids, "top_ids").array.astype(np.int32),
        top_log_probs=from_message(message.top_log_probs, "top_log_probs").float32(),
        blank=from_message(message.blank_log_probs, "blank_log_probs").float32(),
        remainder=from_message(message.remainder_log_probs, "remainder_log_probs").float32(),
        vocab_size=message.vocab_size,
        blank_id=message.blank_id,
    )


def voices_of(message: pb.SpeakerEmbeddings, duration: float) -> SegmentEmbeddings:
    """Checked numpy views of the voices of a segment of `duration` seconds."""
    embeddings = from_message(message.embeddings, "speakers.embeddings").float32()
    if not embeddings.ndim == 2 or not len(embeddings) == len(message.starts) == len(message.ends):
        raise InternalError("the encoder sent speaker windows that do not fit their embeddings")
    return SegmentEmbeddings(
        start=0.0,
        end=duration,
        embeddings=embeddings,
        starts=np.array([seconds(time) for time in message.starts]),
        ends=np.array([seconds(time) for time in message.ends]),
    )
