"""tandem.asr.v1.AsrService over gRPC."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

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
    """Answers Unavailable until the service is ready. With `local_files` clients may name files to read."""

    def __init__(self, service: GatewayService, *, local_files: bool = False) -> None:
        self._service = service
        self._local_files = local_files

    @handlers.unary
    async def Recognize(
        self, request: pb.RecognizeRequest, context: handlers.Context
    ) -> pb.RecognizeResponse:
        recognizer = self._service.ready()
        options = config_to_options(request.config)
        audio = self._file(request) if request.audio_path else self._bytes(request)
        return transcript_to_response(await recognizer.recognize(audio, options))

    def _bytes(self, request: pb.RecognizeRequest) -> bytes:
        audio = request.audio
        if not audio:
            raise InvalidRequest.of("audio", "is empty")
        self._service.limits.check_bytes(len(audio))
        return audio

    def _file(self, request: pb.RecognizeRequest) -> Path:
        if not self._local_files:
            raise InvalidRequest.of("audio_path", "this server takes no paths; send the recording as audio")
        if request.audio:
            raise InvalidRequest.of("audio_path", "came with audio; send one of them")
        path = Path(request.audio_path)
        if not (path.is_absolute() and path.is_file() and os.access(path, os.R_OK)):
            raise InvalidRequest.of("audio_path", "is not the absolute path of a file that can be read")
        self._service.limits.check_bytes(path.stat().st_size)
        return path

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
