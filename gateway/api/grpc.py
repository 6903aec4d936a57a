"""tandem.asr.v1.AsrService over gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from gateway.pipeline import Recognizer
from tandem import __version__
from tandem.asr.v1 import asr_pb2 as pb
from tandem.asr.v1 import asr_pb2_grpc
from tandem.convert import config_to_options, transcript_to_response
from tandem.errors import CapabilityMissing, InvalidRequest, LimitExceeded, Unavailable
from tandem.rpc import handlers
from tandem.rpc.durations import duration

SERVICE = "tandem.asr.v1.AsrService"


@dataclass(frozen=True, slots=True)
class ServiceLimits:
    """What one request may bring: bytes of audio and seconds of audio."""

    max_audio_bytes: int
    max_audio_duration: float


class AsrServicer(asr_pb2_grpc.AsrServiceServicer):
    """Answers Unavailable until `recognizer` is set."""

    def __init__(self, limits: ServiceLimits) -> None:
        self.recognizer: Recognizer | None = None
        self._limits = limits

    @handlers.unary
    async def Recognize(
        self, request: pb.RecognizeRequest, context: handlers.Context
    ) -> pb.RecognizeResponse:
        recognizer = self._ready()
        options = config_to_options(request.config)
        audio = request.audio
        if not audio:
            raise InvalidRequest.of("audio", "is empty")
        if len(audio) > self._limits.max_audio_bytes:
            raise LimitExceeded(f"{len(audio)} bytes exceed the limit of {self._limits.max_audio_bytes}")
        return transcript_to_response(await recognizer.recognize(audio, options))

    @handlers.streaming
    async def StreamingRecognize(
        self, request_iterator: AsyncIterator[pb.StreamingRecognizeRequest], context: handlers.Context
    ) -> AsyncIterator[pb.StreamingRecognizeResponse]:
        raise CapabilityMissing("this server has no streaming recognition; see GetCapabilities.streaming")
        yield pb.StreamingRecognizeResponse()

    @handlers.unary
    async def GetCapabilities(
        self, request: pb.GetCapabilitiesRequest, context: handlers.Context
    ) -> pb.GetCapabilitiesResponse:
        info = self._ready().model.info
        return pb.GetCapabilitiesResponse(
            model=info.model,
            model_hash=info.model_hash,
            server_version=__version__,
            max_audio_duration=duration(self._limits.max_audio_duration),
            max_segment_duration=duration(info.max_segment),
            max_audio_bytes=self._limits.max_audio_bytes,
        )

    def _ready(self) -> Recognizer:
        if self.recognizer is None:
            raise Unavailable("the gateway is waiting for the encoder", retry_after=1.0)
        return self.recognizer
