"""tandem.asr.v1.BatchService over gRPC."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator

from gateway.api.batch_messages import batch_message, progress_message, result_message
from gateway.batch.batch import Batch, BatchRecording
from gateway.batch.manager import BatchManager
from gateway.batch.upload import Incoming
from gateway.keys import caller
from gateway.service import GatewayService
from tandem.asr.v1 import batch_pb2 as pb
from tandem.asr.v1 import batch_pb2_grpc
from tandem.convert import config_to_options
from tandem.errors import InvalidRequest, NotFound, WrongState
from tandem.rpc import handlers

SERVICE = "tandem.asr.v1.BatchService"
_NEWS_SECONDS, _PROGRESS_SECONDS = 1.0, 10.0
"""Progress is told at most and at least so often."""


class BatchServicer(batch_pb2_grpc.BatchServiceServicer):
    """Answers Unavailable until the service is ready. The holder of an API key has batches of its own."""

    def __init__(self, service: GatewayService, manager: BatchManager) -> None:
        self._service = service
        self._manager = manager

    @handlers.unary
    async def BatchRecognize(
        self, request_iterator: AsyncIterator[pb.BatchRecognizeRequest], context: handlers.Context
    ) -> pb.BatchRecognizeResponse:
        self._service.ready()
        first = await anext(aiter(request_iterator), None)
        if first is None or not first.HasField("start"):
            raise InvalidRequest.of("payload", "the first message must be start")
        config_to_options(first.start.config)
        batch = self._manager.open(first.start.batch_id, caller())
        batch.uploads += 1
        try:
            await self._receive(batch, first.start, request_iterator)
        finally:
            batch.uploads -= 1
            batch.touched = time.monotonic()
        if not first.start.keep_open and batch.is_open:
            self._manager.close(batch)
        return pb.BatchRecognizeResponse(batch=batch_message(batch))

    async def _receive(
        self, batch: Batch, start: pb.BatchStart, requests: AsyncIterator[pb.BatchRecognizeRequest]
    ) -> None:
        incoming: Incoming | None = None
        try:
            async for request in requests:
                kind = request.WhichOneof("payload")
                if kind == "recording":
                    if incoming is not None:
                        await incoming.finish()
                    incoming = self._begin(batch, start, request.recording)
                elif kind == "chunk" and incoming is not None:
                    await incoming.write(request.chunk)
                else:
                    raise InvalidRequest.of("payload", f"{kind or 'nothing'} is out of place here")
            if incoming is not None:
                await incoming.finish()
        finally:
            if incoming is not None:
                incoming.close()

    def _begin(self, batch: Batch, start: pb.BatchStart, header: pb.BatchRecording) -> Incoming:
        config = header.config if header.HasField("config") else start.config
        limit = self._service.limits.max_audio_bytes
        return Incoming.begin(self._manager, batch, header.key, config_to_options(config), limit)

    @handlers.unary
    async def GetBatch(self, request: pb.GetBatchRequest, context: handlers.Context) -> pb.GetBatchResponse:
        return pb.GetBatchResponse(batch=batch_message(self._manager.get(request.batch_id, caller())))

    @handlers.streaming
    async def WatchBatch(
        self, request: pb.WatchBatchRequest, context: handlers.Context
    ) -> AsyncIterator[pb.WatchBatchResponse]:
        batch, sent = self._manager.get(request.batch_id, caller()), request.skip_results
        last: pb.BatchProgress | None = None
        told = -math.inf
        while True:
            while sent < len(batch.finished):
                yield pb.WatchBatchResponse(result=await _result(batch, batch.finished[sent]))
                sent += 1
            over = batch.is_terminal and not batch.tasks
            age = time.monotonic() - told
            if over or age >= _NEWS_SECONDS:
                now = progress_message(batch)
                if now != last or age >= _PROGRESS_SECONDS:
                    yield pb.WatchBatchResponse(progress=now)
                    last, told = now, time.monotonic()
                    continue  # results may have come while the client took this
            if over:
                return
            await batch.news(_NEWS_SECONDS)

    @handlers.unary
    async def GetBatchResult(
        self, request: pb.GetBatchResultRequest, context: handlers.Context
    ) -> pb.GetBatchResultResponse:
        batch = self._manager.get(request.batch_id, caller())
        recording = batch.recordings.get(request.key)
        if recording is None:
            raise NotFound(f"the batch has no recording {request.key!r}")
        return pb.GetBatchResultResponse(result=await _result(batch, recording))

    @handlers.unary
    async def CancelBatch(
        self, request: pb.CancelBatchRequest, context: handlers.Context
    ) -> pb.CancelBatchResponse:
        batch = self._manager.get(request.batch_id, caller())
        self._manager.cancel(batch)
        return pb.CancelBatchResponse(batch=batch_message(batch))

    @handlers.unary
    async def DeleteBatch(
        self, request: pb.DeleteBatchRequest, context: handlers.Context
    ) -> pb.DeleteBatchResponse:
        await self._manager.delete(self._manager.get(request.batch_id, caller()))
        return pb.DeleteBatchResponse()


async def _result(batch: Batch, recording: BatchRecording) -> pb.BatchResult:
    if batch.is_deleted:
        raise NotFound(f"the batch {batch.batch_id!r} has been deleted")
    if not recording.is_finished:
        raise WrongState(f"the recording {recording.key!r} is {recording.stage}")
    return await asyncio.to_thread(result_message, recording)
