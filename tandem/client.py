"""The typed client of a running server: `Client` for scripts, `AsyncClient` for services."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

import grpc
import grpc.aio
import tenacity

from tandem.access import Access
from tandem.asr.v1 import asr_pb2 as pb
from tandem.asr.v1 import asr_pb2_grpc
from tandem.convert import options_to_config, response_to_transcript
from tandem.errors import Cancelled
from tandem.patience import Patience, give_up_after, recommended_timeout
from tandem.results import RecognizeOptions, Transcript
from tandem.rpc.channels import channel_options
from tandem.rpc.status import from_rpc_error
from tandem.waves import SAMPLE_RATE, to_wav

Audio: TypeAlias = Any
"""A recording: its bytes, the path of its file, samples (array or tensor, float in [-1, 1] or int16), or a
ServerFile."""

_UNLIMITED = -1
"""The server's limits count, not this side's: a recording is as large as it is."""


def load_audio(audio: Audio, sample_rate: int = SAMPLE_RATE) -> bytes:
    """The recording in its container. Raises OSError for a file, TypeError or ValueError for samples."""
    if isinstance(audio, bytes):
        return audio
    if isinstance(audio, (str, Path)):
        return Path(audio).read_bytes()
    return to_wav(audio, sample_rate)


@dataclass(frozen=True, slots=True)
class ServerFile:
    """A recording that the server reads itself: it is on this machine and was started with --local-files."""

    path: Path


def _request(audio: Audio, options: RecognizeOptions | None, sample_rate: int) -> pb.RecognizeRequest:
    config = options_to_config(options or RecognizeOptions())
    if isinstance(audio, ServerFile):
        return pb.RecognizeRequest(config=config, audio_path=str(audio.path.resolve()))
    return pb.RecognizeRequest(config=config, audio=load_audio(audio, sample_rate))


def _budget(request: pb.RecognizeRequest, timeout: float | None) -> float:
    if timeout is not None:
        return timeout
    return recommended_timeout(Path(request.audio_path) if request.audio_path else request.audio)


def _rest(started: float, budget: float) -> float | None:
    """What is left of `budget` seconds for one more attempt; None sets no deadline."""
    return None if math.isinf(budget) else max(0.001, budget - (time.monotonic() - started))


class Client:
    """A blocking client; its methods may be called from several threads at the same time.

    >>> with Client("localhost:50051") as client:
    ...     print(client.recognize("meeting.wav").text)

    Calls that an overloaded or starting server refused are made again, when and as often as `patience`
    says. Every call raises a subclass of tandem.errors.TandemError.
    """

    def __init__(
        self,
        target: str = "localhost:50051",
        *,
        patience: Patience | None = None,
        access: Access | None = None,
    ) -> None:
        self.target = target
        self._patience = patience or Patience()
        self._channel = (access or Access()).channel(target, channel_options(_UNLIMITED))
        self._stub = asr_pb2_grpc.AsrServiceStub(self._channel)
        self._closed = threading.Event()

    def recognize(
        self,
        audio: Audio,
        options: RecognizeOptions | None = None,
        *,
        timeout: float | None = None,
        sample_rate: int = SAMPLE_RATE,
    ) -> Transcript:
        """Transcribe one recording. `sample_rate` is that of samples, files know theirs.

        `timeout` is in seconds for all attempts together; None is a minute and twice the recording's
        duration, math.inf is no limit.
        """
        request = _request(audio, options, sample_rate)
        budget, started = _budget(request, timeout), time.monotonic()

        def attempt() -> Transcript:
            with self._typed_errors():
                return response_to_transcript(self._stub.Recognize(request, timeout=_rest(started, budget)))

        retrying = tenacity.Retrying(
            **give_up_after(self._patience, budget), sleep=tenacity.sleep_using_event(self._closed)
        )
        return retrying(attempt)

    def capabilities(self, *, timeout: float | None = 10) -> pb.GetCapabilitiesResponse:
        """What the server can do and its limits."""
        with self._typed_errors():
            return self._stub.GetCapabilities(pb.GetCapabilitiesRequest(), timeout=timeout)

    def close(self) -> None:
        """Running calls in other threads end with Cancelled, those that wait to ask again included."""
        self._closed.set()
        self._channel.close()

    @contextlib.contextmanager
    def _typed_errors(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        except ValueError as error:
            # What grpc raises for a call on a channel that was closed.
            if not self._closed.is_set():
                raise
            raise Cancelled("the client was closed") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncClient:
    """An asyncio client with the calls of `Client`."""

    def __init__(
        self,
        target: str = "localhost:50051",
        *,
        patience: Patience | None = None,
        access: Access | None = None,
    ) -> None:
        self.target = target
        self._patience = patience or Patience()
        self._channel = (access or Access()).aio_channel(target, channel_options(_UNLIMITED))
        self._stub: asr_pb2_grpc.AsrServiceAsyncStub = asr_pb2_grpc.AsrServiceStub(self._channel)

    async def recognize(
        self,
        audio: Audio,
        options: RecognizeOptions | None = None,
        *,
        timeout: float | None = None,
        sample_rate: int = SAMPLE_RATE,
    ) -> Transcript:
        """Transcribe one recording, as Client.recognize does."""
        request = await asyncio.to_thread(_request, audio, options, sample_rate)
        budget, started = _budget(request, timeout), time.monotonic()

        async def attempt() -> Transcript:
            try:
                return response_to_transcript(
                    await self._stub.Recognize(request, timeout=_rest(started, budget))
                )
            except grpc.RpcError as error:
                raise from_rpc_error(error) from error

        return await tenacity.AsyncRetrying(**give_up_after(self._patience, budget))(attempt)

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
