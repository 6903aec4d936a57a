"""Batches from Python: upload recordings, leave, come back for the results; lost connections are taken up."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
from google.rpc import status_pb2

from tandem.access import Access
from tandem.asr.v1 import batch_pb2 as pb
from tandem.asr.v1 import batch_pb2_grpc
from tandem.convert import options_to_config, response_to_transcript
from tandem.errors import AlreadyExists, NotFound, TandemError, Unavailable, WrongState
from tandem.inputs import Input, Recording, recordings
from tandem.results import RecognizeOptions, Transcript
from tandem.rpc.channels import channel_options
from tandem.rpc.durations import seconds
from tandem.rpc.status import from_rpc_error, from_status

_CHUNK = 512 * 1024
_ATTEMPTS, _DELAY = 8, 1.0
_UNLIMITED = -1


@dataclass(frozen=True, slots=True)
class BatchItem:
    """One recording's transcript, or why there is none."""

    key: str
    transcript: Transcript | None = None
    error: TandemError | None = None


@dataclass(frozen=True, slots=True)
class RecordingStatus:
    """`state` is waiting, running, succeeded, failed or cancelled; `duration` in seconds once recognised."""

    key: str
    state: str
    error: TandemError | None = None
    duration: float | None = None


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """`state` is open, running, done or cancelled; `expires` is of time.time(), None while it works."""

    batch_id: str
    state: str
    progress_percent: int
    recordings: tuple[RecordingStatus, ...]
    expires: float | None


class BatchClient:
    """Long-running recognition on a running server.

    >>> with BatchClient("localhost:50051") as batches:
    ...     batch_id = batches.start("wav.scp")
    ...     for item in batches.results(batch_id):
    ...         print(item.key, item.transcript.text if item.transcript else item.error)

    Every call raises a subclass of tandem.errors.TandemError.
    """

    def __init__(self, target: str = "localhost:50051", *, access: Access | None = None) -> None:
        self._channel = (access or Access()).channel(target, channel_options(_UNLIMITED))
        self._stub = batch_pb2_grpc.BatchServiceStub(self._channel)

    def start(self, inputs: Input, options: RecognizeOptions | None = None, *, batch_id: str = "") -> str:
        """Upload recordings (as AutoModelVLLM.generate takes them) and return the batch's id.

        Recognition begins with the first complete recording and does not need this client any more. An
        upload that breaks off is taken up where it was; with `batch_id` that goes for one of another process.
        """
        items = list(recordings(inputs))
        for item in items:
            if isinstance(item.source, Path) and not item.source.is_file():
                raise FileNotFoundError(item.name)
        name = batch_id or uuid.uuid4().hex
        header = pb.BatchStart(batch_id=name, config=options_to_config(options or RecognizeOptions()))
        for attempt in range(_ATTEMPTS):
            there = self._keys(name) if attempt or batch_id else set()
            upload = _Upload(header, [item for item in items if item.key not in there])
            try:
                self._stub.BatchRecognize(iter(upload))
                return name
            except grpc.RpcError as error:
                failure = upload.failure or from_rpc_error(error)
                if isinstance(failure, WrongState) and not upload.items:
                    return name  # an earlier attempt came through, only its answer was lost
                if not isinstance(failure, Unavailable | AlreadyExists) or attempt == _ATTEMPTS - 1:
                    raise failure from error
                time.sleep(failure.retry_after or _DELAY)
        raise AssertionError("the last attempt returns or raises")

    def status(self, batch_id: str) -> BatchStatus:
        """State and progress. Raises NotFound when the batch is unknown or has expired."""
        try:
            return _status(self._stub.GetBatch(pb.GetBatchRequest(batch_id=batch_id)).batch)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    def results(
        self, batch_id: str, on_progress: Callable[[int], None] = lambda percent: None
    ) -> Iterator[BatchItem]:
        """Each recording's outcome, in order of completion, until the batch is done or cancelled.

        `on_progress` gets percents in between. Lost connections are taken up.
        """
        received, failures = 0, 0
        while True:
            request = pb.WatchBatchRequest(batch_id=batch_id, skip_results=received)
            try:
                for message in self._stub.WatchBatch(request):
                    failures = 0
                    if message.HasField("progress"):
                        on_progress(message.progress.progress_percent)
                    else:
                        received += 1
                        yield _item(message.result)
                return
            except grpc.RpcError as error:
                failure = from_rpc_error(error)
                failures += 1
                if not isinstance(failure, Unavailable) or failures == _ATTEMPTS:
                    raise failure from error
                time.sleep(failure.retry_after or _DELAY)

    def cancel(self, batch_id: str) -> BatchStatus:
        """Stop what waits or runs; results that are there stay."""
        try:
            return _status(self._stub.CancelBatch(pb.CancelBatchRequest(batch_id=batch_id)).batch)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    def delete(self, batch_id: str) -> None:
        """Cancel, and remove audio and results."""
        try:
            self._stub.DeleteBatch(pb.DeleteBatchRequest(batch_id=batch_id))
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    def close(self) -> None:
        self._channel.close()

    def _keys(self, batch_id: str) -> set[str]:
        try:
            return {item.key for item in self.status(batch_id).recordings}
        except (NotFound, Unavailable):
            return set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(slots=True)
class _Upload:
    """The messages of one upload; `failure` is what reading a recording ended it with."""

    start: pb.BatchStart
    items: Sequence[Recording]
    failure: Exception | None = None

    def __iter__(self) -> Iterator[pb.BatchRecognizeRequest]:
        yield pb.BatchRecognizeRequest(start=self.start)
        for item in self.items:
            yield pb.BatchRecognizeRequest(recording=pb.BatchRecording(key=item.key))
            try:
                for chunk in _chunks(item):
                    yield pb.BatchRecognizeRequest(chunk=chunk)
            except (OSError, TypeError, ValueError) as error:
                self.failure = error
                raise


def _chunks(item: Recording) -> Iterator[bytes]:
    if isinstance(item.source, Path):
        with item.source.open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
        return
    data = item.load()
    for offset in range(0, len(data), _CHUNK):
        yield data[offset : offset + _CHUNK]


def _error(message: pb.Status) -> TandemError:
    return from_status(status_pb2.Status.FromString(message.SerializeToString()))


def _item(message: pb.BatchResult) -> BatchItem:
    if message.HasField("error"):
        return BatchItem(message.key, error=_error(message.error))
    return BatchItem(message.key, response_to_transcript(message.response))


def _status(batch: pb.Batch) -> BatchStatus:
    return BatchStatus(
        batch.batch_id,
        pb.Batch.State.Name(batch.state).removeprefix("STATE_").lower(),
        batch.progress_percent,
        tuple(
            RecordingStatus(
                item.key,
                pb.BatchRecordingStatus.State.Name(item.state).removeprefix("STATE_").lower(),
                _error(item.error) if item.HasField("error") else None,
                seconds(item.audio_duration) if item.HasField("audio_duration") else None,
            )
            for item in batch.recordings
        ),
        batch.expire_time.ToMilliseconds() / 1000 if batch.HasField("expire_time") else None,
    )
