"""The gateway's client of the encoder tier: segments of audio out, tokens and CTC posteriors in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway.audio.types import SAMPLE_RATE, Samples
from gateway.backends.features import Features
from gateway.backends.live import LiveLink, OnlyPlace, Place
from gateway.backends.segment_call import SegmentCall, SegmentRequest, SegmentResult
from gateway.backends.wire import audio_config, audio_messages, voices_of
from gateway.speakers.types import SegmentEmbeddings
from gateway.text.prompt import PromptStyle
from tandem.access import Access
from tandem.encoder.v1 import encoder_pb2 as pb
from tandem.encoder.v1 import encoder_pb2_grpc
from tandem.errors import TandemError, Unavailable
from tandem.rpc.calls import streaming_call
from tandem.rpc.channels import connect
from tandem.rpc.durations import seconds
from tandem.rpc.status import from_rpc_error

_HEALTH_TIMEOUT = 2.0


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

    def live(self) -> LiveLink:
        """A line to one encoder for the audio of a live session."""
        ...

    async def voices(self, samples: Samples, request_id: str, timeout: float) -> SegmentEmbeddings: ...

    async def takes_requests(self) -> bool:
        """Whether a segment sent now would find an encoder that is ready."""
        ...

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
        self._features = Features()

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
        self._features = Features.of(info)
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

    async def takes_requests(self) -> bool:
        try:
            await self.load(_HEALTH_TIMEOUT)
        except TandemError:
            return False
        return True

    async def transcribe(
        self, request: SegmentRequest, *, ctc: bool, on_encoded: Callable[[], None] = ignore
    ) -> SegmentResult:
        """Encode and decode one segment. Raises the tier's own typed error.

        `on_encoded` is called when only the decoder has work left; not when the call fails before.
        """
        exchange = SegmentCall(request, self._features, on_encoded, ctc=ctc)
        async with streaming_call(self._stub.Transcribe, exchange.requests()) as call:
            return await exchange.result(call)

    def live(self, place: Place | None = None) -> LiveLink:
        """A line to the encoder for the audio of a live session; `place` as in LiveLink."""
        return LiveLink(self._stub, self._features, place or OnlyPlace())

    async def voices(self, samples: Samples, request_id: str, timeout: float) -> SegmentEmbeddings:
        """Voices of samples [n] alone, times from their start. Raises the tier's own typed error."""
        requests = _voice_messages(samples, request_id)
        async with streaming_call(self._stub.Transcribe, requests, timeout) as call:
            async for response in call:
                if response.HasField("speakers"):
                    return voices_of(response.speakers, len(samples) / SAMPLE_RATE)
        raise Unavailable("the encoder ended the call without a result")

    async def close(self) -> None:
        await self._channel.close()


async def _voice_messages(samples: Samples, request_id: str) -> AsyncIterator[pb.TranscribeRequest]:
    yield pb.TranscribeRequest(
        config=pb.TranscribeConfig(
            request_id=request_id,
            audio=audio_config(samples),
            ctc_only=True,
            speaker_embeds=True,
        )
    )
    for message in audio_messages(samples):
        yield message
