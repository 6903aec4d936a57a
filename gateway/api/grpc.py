"""tandem.asr.v1.AsrService over gRPC."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from gateway.api.streaming import streaming_recognize
from gateway.service import GatewayService
from tandem import __version__
from tandem.asr.v1 import asr_pb2 as pb
from tandem.asr.v1 import asr_pb2_grpc
from tandem.convert import config_to_options, transcript_to_response
from tandem.errors import InvalidRequest
from tandem.rpc import handlers
from tandem.rpc.durations import duration

SERVICE = "tandem.asr.v1.AsrService"


class AsrServicer(asr_pb2_grpc.AsrServiceServicer):
    """Answers Unavailable until the service is ready."""

    def __init__(self, service: GatewayService) -> None:
        self._service = service

    @handlers.unary
    async def Recognize(
        self, request: pb.RecognizeRequest, context: handlers.Context
    ) -> pb.RecognizeResponse:
        recognizer = self._service.ready()
        options = config_to_options(request.config)
        audio = request.audio
        if not audio:
            raise InvalidRequest.of("audio", "is empty")
        self._service.limits.check_bytes(len(audio))
        return transcript_to_response(await recognizer.recognize(audio, options))

    @handlers.streaming
    async def StreamingRecognize(
        self, request_iterator: AsyncIterator[pb.StreamingRecognizeRequest], context: handlers.Context
    ) -> AsyncIterator[pb.StreamingRecognizeResponse]:
        responses = streaming_recognize(self._service.live(), request_iterator, context)
        async with contextlib.aclosing(responses):
            async for response in responses:
                yield response

    @handlers.unary
    async def GetCapabilities(
        self, request: pb.GetCapabilitiesRequest, context: handlers.Context
    ) -> pb.GetCapabilitiesResponse:
        info, limits = self._service.ready().model.info, self._service.limits
        return pb.GetCapabilitiesResponse(
            model=info.model,
            model_hash=info.model_hash,
            server_version=__version__,
            streaming=self._service.sessions is not None,
            word_times=info.has_ctc,
            speakers=info.has_speakers,
            max_audio_duration=duration(limits.max_audio_duration),
            max_segment_duration=duration(info.max_segment),
            max_audio_bytes=limits.max_audio_bytes,
        )
