"""Prompts that are there at the same time share messages to a decoder: a batch is encoded all at once.

Calls stay open for the next prompts, since opening one takes longer than all the rest of the way.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from google.rpc import status_pb2

from tandem.decoder.v1 import decoder_pb2 as pb
from tandem.errors import Unavailable
from tandem.rpc.status import from_rpc_error, from_status
from tandem.rpc.wire import Buffer, field

Method = grpc.aio.StreamStreamMultiCallable[bytes, pb.GenerateBatchResponse]

METHOD = "/tandem.decoder.v1.DecoderService/GenerateBatch"
MAX_PROMPTS = 8
"""Of a message: more would save little, and calls are what is spread over several decoders."""
MAX_BYTES = 16 * 2**20
"""Of a message, unless one prompt has more."""
OPEN_SECONDS = 2.0
"""A call takes no more prompts then: it stays with its decoder, and others may have come, or this may go."""


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """A prompt, whom to tell that it is on its way, and who waits for its answer, or has left."""

    prompt: Sequence[Buffer]
    on_sent: Callable[[], None]
    answer: asyncio.Future[pb.GenerateResponse]

    def settle(self, answer: pb.GenerateResponse) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class _Tasks:
    """Keeps tasks that nobody waits for until they are done."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._running.add(task)
        task.add_done_callback(self._running.discard)


class BatchCalls:
    """Calls GenerateBatch, one message at a time in each call. Made for one event loop."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._method: Method = channel.stream_stream(
            METHOD, response_deserializer=pb.GenerateBatchResponse.FromString
        )
        self._waiting: list[_Asked] = []
        self._idle: deque[_OpenCall] = deque()
        self._tasks = _Tasks()

    async def answer(self, prompt: Sequence[Buffer], on_sent: Callable[[], None]) -> pb.GenerateResponse:
        """All tokens and the result for an encoded GenerateAtOnceRequest.

        Raises what the decoder says of this prompt, or of its call, typed. `on_sent` is called when it is on
        its way. Cancelling gives the prompt's place in the decoder back.
        """
        asked = _Asked(prompt, on_sent, asyncio.get_running_loop().create_future())
        if not self._waiting:
            self._tasks.start(self._send())
        self._waiting.append(asked)
        return await asked.answer

    async def _send(self) -> None:
        waiting = [asked for asked in self._waiting if not asked.answer.done()]
        self._waiting = []
        sendings = [self._call().ask(group) for group in _groups(waiting)]
        for sending in sendings[1:]:
            self._tasks.start(sending)
        for sending in sendings[:1]:
            # In this very task: the loop may have much to do before a new one has its turn.
            await sending

    def _call(self) -> _OpenCall:
        return self._idle_call() or _OpenCall(self._method, self._tasks, self._idle.append)

    def _idle_call(self) -> _OpenCall | None:
        """The one that has been idle longest, so that all of them, and all decoders, get prompts."""
        while self._idle:
            call = self._idle.popleft()
            if call.takes_prompts:
                return call
        return None


class _OpenCall:
    """One call, which gets the next prompts when all that it had are answered or cancelled."""

    def __init__(
        self,
        method: Method,
        tasks: _Tasks,
        on_idle: Callable[[_OpenCall], None],
    ) -> None:
        self.takes_prompts = True
        self._tasks, self._on_idle = tasks, on_idle
        self._known = 0
        self._asked: dict[int, _Asked] = {}
        self._writing = asyncio.Lock()
        self._call = method()
        self._retires = asyncio.get_running_loop().call_later(OPEN_SECONDS, self._retire)
        tasks.start(self._read())

    def ask(self, group: Sequence[_Asked]) -> Coroutine[Any, Any, None]:
        """Sends them, when it is awaited; each gets its answer or an error."""
        first = self._known
        self._known += len(group)
        for place, asked in enumerate(group, first):
            self._asked[place] = asked
            asked.answer.add_done_callback(functools.partial(self._over, place))
        return self._send(group, more_follow=first == 0)

    async def _send(self, group: Sequence[_Asked], *, more_follow: bool) -> None:
        await self._write(_message(group, more_follow=more_follow))
        for asked in group:
            asked.on_sent()

    async def _write(self, message: bytes) -> None:
        try:
            async with self._writing:
                await self._call.write(message)
        except (grpc.RpcError, asyncio.InvalidStateError):
            # grpc.aio makes an INTERNAL of whatever ends a call while it is written to, for the reader too.
            self._fail(Unavailable("the decoder's call broke off"))

    async def _read(self) -> None:
        try:
            while isinstance(response := await self._call.read(), pb.GenerateBatchResponse):
                for answer in response.answers:
                    self._settle(answer)
            self._fail(Unavailable("the decoder ended the call without an answer"))
        except grpc.RpcError as error:
            self._fail(from_rpc_error(error))
        except Exception as error:
            self._fail(error)
        finally:
            self._fail(Unavailable("the call of the decoder was closed"))
            self._retires.cancel()
            self._call.cancel()

    def _settle(self, answer: pb.BatchedAnswer) -> None:
        asked = self._asked.get(answer.prompt)
        if asked is None:
            return  # It was cancelled meanwhile.
        if answer.HasField("error"):
            asked.fail(from_status(status_pb2.Status.FromString(answer.error)))
        else:
            asked.settle(answer.answer)

    def _fail(self, error: Exception) -> None:
        self.takes_prompts = False
        for asked in self._asked.values():
            asked.fail(error)

    def _over(self, place: int, answer: asyncio.Future[pb.GenerateResponse]) -> None:
        del self._asked[place]
        if answer.cancelled() and not self._call.done():
            # Where the call breaks off, so does the prompt.
            self._tasks.start(self._write(pb.GenerateBatchRequest(cancel=[place]).SerializeToString()))
        if self._asked:
            return
        if self.takes_prompts:
            self._on_idle(self)
        else:
            self._tasks.start(self._end())

    def _retire(self) -> None:
        self.takes_prompts = False
        if not self._asked:
            self._tasks.start(self._end())

    async def _end(self) -> None:
        """The decoder ends the call then, and the reader."""
        with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
            async with self._writing:
                await self._call.done_writing()


def _message(group: Sequence[_Asked], *, more_follow: bool) -> bytes:
    """An encoded GenerateBatchRequest."""
    rest = pb.GenerateBatchRequest(more_follow=more_follow).SerializeToString()
    prompts = [field(pb.GenerateBatchRequest, "prompts", asked.prompt) for asked in group]
    return b"".join([*itertools.chain.from_iterable(prompts), rest])


def _groups(waiting: Sequence[_Asked]) -> Iterator[list[_Asked]]:
    """In their order, each within the limits of a message."""
    group: list[_Asked] = []
    size = 0
    for asked in waiting:
        more = sum(map(len, asked.prompt))
        if group and (len(group) == MAX_PROMPTS or size + more > MAX_BYTES):
            yield group
            group, size = [], 0
        group.append(asked)
        size += more
    if group:
        yield group
