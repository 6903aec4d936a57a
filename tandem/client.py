"""The typed client of a running server: `Client` for scripts, `AsyncClient` for services."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
import grpc.aio

from tandem.asr.v1 import asr_pb2 as pb
from tandem.asr.v1 import asr_pb2_grpc
from tandem.convert import options_to_config, response_to_transcript
from tandem.results import RecognizeOptions, Transcript
from tandem.rpc.channels import channel_options
from tandem.rpc.status import from_rpc_error

Audio = bytes | str | Path
"""A recording: its bytes, or the path of its file."""


def _request(audio: Audio, options: RecognizeOptions | None) -> pb.RecognizeRequest:
    data = audio if isinstance(audio, bytes) else Path(audio).read_bytes()
    return pb.RecognizeRequest(config=options_to_config(options or RecognizeOptions()), audio=data)


class Client:
    """A blocking client.

    >>> with Client("localhost:50051") as client:
    ...     print(client.recognize("meeting.wav").text)

    Every call raises a subclass of tandem.errors.TandemError.
    """

    def __init__(self, target: str = "localhost:50051") -> None:
        self._channel = grpc.insecure_channel(target, options=channel_options())
        self._stub = asr_pb2_grpc.AsrServiceStub(self._channel)

    def recognize(
        self, audio: Audio, options: RecognizeOptions | None = None, *, timeout: float | None = None
    ) -> Transcript:
        """Transcribe one recording. `timeout` is in seconds."""
        try:
            return response_to_transcript(self._stub.Recognize(_request(audio, options), timeout=timeout))
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    def capabilities(self, *, timeout: float | None = 10) -> pb.GetCapabilitiesResponse:
        """What the server can do and its limits."""
        try:
            return self._stub.GetCapabilities(pb.GetCapabilitiesRequest(), timeout=timeout)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncClient:
    """An asyncio client with the calls of `Client`."""

    def __init__(self, target: str = "localhost:50051") -> None:
        self._channel = grpc.aio.insecure_channel(target, options=channel_options())
        self._stub: asr_pb2_grpc.AsrServiceAsyncStub = asr_pb2_grpc.AsrServiceStub(self._channel)

    async def recognize(
        self, audio: Audio, options: RecognizeOptions | None = None, *, timeout: float | None = None
    ) -> Transcript:
        """Transcribe one recording. `timeout` is in seconds."""
        try:
            return response_to_transcript(
                await self._stub.Recognize(_request(audio, options), timeout=timeout)
            )
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    async def capabilities(self, *, timeout: float | None = 10) -> pb.GetCapabilitiesResponse:
        """What the server can do and its limits."""
        try:
            return await self._stub.GetCapabilities(pb.GetCapabilitiesRequest(), timeout=timeout)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    async def close(self) -> None:
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
