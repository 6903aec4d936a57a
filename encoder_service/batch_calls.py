"""Prompts that are there at the same time share calls of the decoder: a batch is encoded all at once."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import grpc
import grpc.aio
from google.rpc import status_pb2

from tandem.decoder.v1 import decoder_pb2 as pb
from tandem.decoder.v1 import decoder_pb2_grpc
from tandem.errors import Unavailable
from tandem.rpc.status import from_rpc_error, from_status

MAX_PROMPTS = 8
"""Of a call: more would save little, and calls are what is spread over several decoders."""
MAX_BYTES = 16 * 2**20
"""Of a call's embeddings, unless one prompt has more."""


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """A prompt and who waits for its answer, or has left."""

    prompt: pb.GenerateAtOnceRequest
    answer: asyncio.Future[pb.GenerateResponse]

    def settle(self, answer: pb.GenerateResponse) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class BatchCalls:
    """Calls GenerateBatch, and GenerateAtOnce for a prompt that comes alone. Made for one event loop."""

    def __init__(self, stub: decoder_pb2_grpc.DecoderServiceAsyncStub) -> None:
        self._stub = stub
        self._waiting: list[_Asked] = []
        self._running: set[asyncio.Task[None]] = set()

    async def answer(self, prompt: pb.GenerateAtOnceRequest) -> pb.GenerateResponse:
        """All tokens and the result. Raises what the decoder says of this prompt, or of its call, typed.

        Cancelling gives the prompt's place in the decoder back.
        """
        loop = asyncio.get_running_loop()
        asked = _Asked(prompt, loop.create_future())
        if not self._waiting:
            loop.call_soon(self._send)
        self._waiting.append(asked)
        return await asked.answer

    def _send(self) -> None:
        waiting = [asked for asked in self._waiting if not asked.answer.done()]
        self._waiting = []
        for group in _groups(waiting):
            call = _Batch(self._stub, group).run() if len(group) > 1 else _alone(self._stub, group[0])
            self._keep(asyncio.create_task(call))

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._running.add(task)
        task.add_done_callback(self._running.discard)


async def _alone(stub: decoder_pb2_grpc.DecoderServiceAsyncStub, asked: _Asked) -> None:
    call = stub.GenerateAtOnce(asked.prompt)
    asked.answer.add_done_callback(lambda answer: call.cancel() if answer.cancelled() else None)
    try:
        asked.settle((await call).answer)
    except grpc.RpcError as error:
        asked.fail(from_rpc_error(error))


class _Batch:
    """One call for several prompts."""

    def __init__(self, stub: decoder_pb2_grpc.DecoderServiceAsyncStub, asked: Sequence[_Asked]) -> None:
        self._asked = asked
        self._call = stub.GenerateBatch()
        self._writing = asyncio.Lock()
        self._leaving: set[asyncio.Task[None]] = set()
        for number, one in enumerate(asked):
            one.answer.add_done_callback(functools.partial(self._left, number))

    async def run(self) -> None:
        """Every prompt has an answer or an error when it returns."""
        try:
            await self._write(pb.GenerateBatchRequest(prompts=[one.prompt for one in self._asked]))
            async for response in self._call:
                for answer in response.answers:
                    self._settle(answer)
            self._fail(Unavailable("the decoder ended the call without an answer"))
        except grpc.RpcError as error:
            self._fail(from_rpc_error(error))
        except Exception as error:
            self._fail(error)
        finally:
            self._call.cancel()

    async def _write(self, message: pb.GenerateBatchRequest) -> None:
        try:
            async with self._writing:
                await self._call.write(message)
        except (grpc.RpcError, asyncio.InvalidStateError) as error:
            # grpc.aio makes an INTERNAL of whatever ends a call while it is written to.
            raise Unavailable("the decoder's call broke off") from error

    def _settle(self, answer: pb.BatchedAnswer) -> None:
        asked = self._asked[answer.prompt]
        if answer.HasField("error"):
            asked.fail(from_status(status_pb2.Status.FromString(answer.error)))
        else:
            asked.settle(answer.answer)

    def _fail(self, error: Exception) -> None:
        for one in self._asked:
            one.fail(error)

    def _left(self, number: int, answer: asyncio.Future[pb.GenerateResponse]) -> None:
        if answer.cancelled():
            task = asyncio.create_task(self._cancel(number))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def _cancel(self, number: int) -> None:
        if not self._call.done():
            # Where the call breaks off, so does the prompt.
            with contextlib.suppress(Unavailable):
                await self._write(pb.GenerateBatchRequest(cancel=[number]))


def _groups(waiting: Sequence[_Asked]) -> Iterator[list[_Asked]]:
    """In their order, each within the limits of a call."""
    group: list[_Asked] = []
    size = 0
    for asked in waiting:
        more = sum(map(len, asked.prompt.embeddings))
        if group and (len(group) == MAX_PROMPTS or size + more > MAX_BYTES):
            yield group
            group, size = [], 0
        group.append(asked)
        size += more
    if group:
        yield group
