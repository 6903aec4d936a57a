"""One call of GenerateBatch: prompts that came together or later, each answered alone, once it is done."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence

from decoder_service.telemetry import observe_message
from tandem.decoder.v1 import decoder_pb2 as pb
from tandem.errors import InvalidRequest
from tandem.rpc.handlers import status_of

Messages = AsyncIterator[pb.GenerateBatchRequest]
Answer = Callable[[pb.GenerateAtOnceRequest, float], Awaitable[pb.GenerateResponse]]

MAX_UNREAD = 256
"""Answers that wait for the caller to read them, before nothing more is read of the caller's."""


class BatchCall:
    """`answer` gives the answer to a prompt, which came at that time.monotonic(), or raises.

    An error is that prompt's alone.
    """

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._known = 0
        self._running: dict[int, asyncio.Task[None]] = {}
        self._done: list[pb.BatchedAnswer] = []
        self._changed = asyncio.Event()
        self._taken = asyncio.Event()

    async def responses(
        self, first: pb.GenerateBatchRequest, later: Messages
    ) -> AsyncGenerator[pb.GenerateBatchResponse, None]:
        """Until every prompt is answered or cancelled, and no more can follow. Closing it cancels the rest.

        Raises InvalidRequest when `later` has prompts that `first` did not announce, or cancels unknown ones.
        """
        self._begin(first.prompts)
        reader = asyncio.create_task(self._read(later, more_follow=first.more_follow))
        reader.add_done_callback(lambda _: self._changed.set())
        try:
            while self._running or self._done or (first.more_follow and not reader.done()):
                await self._changed.wait()
                self._changed.clear()
                if reader.done():
                    reader.result()
                if self._done:
                    answers, self._done = self._done, []
                    self._taken.set()
                    yield pb.GenerateBatchResponse(answers=answers)
        finally:
            tasks = [reader, *self._running.values()]
            for task in tasks:
                task.cancel()
            # An engine has freed what it held for a prompt when its task is over.
            await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, prompts: Sequence[pb.GenerateAtOnceRequest]) -> None:
        arrived = time.monotonic()
        observe_message(len(prompts))
        for prompt in prompts:
            place = self._known
            self._known += 1
            task = asyncio.create_task(self._one(place, prompt, arrived))
            self._running[place] = task
            # Not in the task: one that is cancelled before it runs never gets there.
            task.add_done_callback(functools.partial(self._over, place))

    def _over(self, place: int, task: asyncio.Task[None]) -> None:
        del self._running[place]
        self._changed.set()

    async def _one(self, place: int, prompt: pb.GenerateAtOnceRequest, arrived: float) -> None:
        try:
            answer = pb.BatchedAnswer(prompt=place, answer=await self._answer(prompt, arrived))
        except Exception as error:
            answer = pb.BatchedAnswer(prompt=place, error=status_of(error).SerializeToString())
        self._done.append(answer)
        self._changed.set()

    async def _read(self, later: Messages, *, more_follow: bool) -> None:
        async for message in later:
            if message.prompts and not more_follow:
                raise InvalidRequest.of("prompts", "may come only in the first message, or if more_follow")
            if message.prompts:
                self._begin(message.prompts)
            for place in message.cancel:
                if place >= self._known:
                    raise InvalidRequest.of("cancel", f"there are {self._known} prompts")
                if place in self._running:
                    self._running[place].cancel()
            await self._room()

    async def _room(self) -> None:
        """Until the caller reads on. What it sends meanwhile fills HTTP/2's window, then waits with it.

        Prompts under way do not count: a cancel must not wait for them to end, and there are no more of them
        than admission lets in, since the others are refused at once.
        """
        while len(self._done) >= MAX_UNREAD:
            self._taken.clear()
            await self._taken.wait()


async def first_of(messages: Messages) -> pb.GenerateBatchRequest:
    """The stream's first message. Raises InvalidRequest where it has no prompts."""
    first = await anext(messages, None)
    if first is None or not first.prompts:
        raise InvalidRequest.of("prompts", "the first message of the stream must carry them")
    return first
