"""One call of GenerateBatch: prompts that came together, each answered alone and as soon as it is done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

from tandem.decoder.v1 import decoder_pb2 as pb
from tandem.errors import InvalidRequest
from tandem.rpc.handlers import status_of

Messages = AsyncIterator[pb.GenerateBatchRequest]
Answer = Callable[[pb.GenerateAtOnceRequest], Awaitable[pb.GenerateResponse]]


class BatchCall:
    """`answer` gives one prompt's answer or raises; an error is that prompt's alone."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._tasks: list[asyncio.Task[None]] = []
        self._left = 0
        self._done: list[pb.BatchedAnswer] = []
        self._changed = asyncio.Event()

    async def responses(
        self, prompts: list[pb.GenerateAtOnceRequest], later: Messages
    ) -> AsyncGenerator[pb.GenerateBatchResponse, None]:
        """Until every prompt is answered or cancelled. Closing it cancels what is not done yet.

        Raises InvalidRequest when `later` has anything but prompts to cancel.
        """
        self._left = len(prompts)
        self._tasks = [asyncio.create_task(self._one(*numbered)) for numbered in enumerate(prompts)]
        reader = asyncio.create_task(self._read(later))
        reader.add_done_callback(lambda _: self._changed.set())
        try:
            while self._left or self._done:
                await self._changed.wait()
                self._changed.clear()
                if reader.done():
                    reader.result()
                if self._done:
                    answers, self._done = self._done, []
                    yield pb.GenerateBatchResponse(answers=answers)
        finally:
            for task in (reader, *self._tasks):
                task.cancel()
            # An engine has freed what it held for a prompt when its task is over.
            await asyncio.gather(reader, *self._tasks, return_exceptions=True)

    async def _one(self, number: int, prompt: pb.GenerateAtOnceRequest) -> None:
        try:
            answer = pb.BatchedAnswer(prompt=number, answer=await self._answer(prompt))
            self._done.append(answer)
        except Exception as error:
            self._done.append(pb.BatchedAnswer(prompt=number, error=status_of(error).SerializeToString()))
        finally:
            self._left -= 1
            self._changed.set()

    async def _read(self, later: Messages) -> None:
        async for message in later:
            if message.prompts:
                raise InvalidRequest.of("prompts", "may come only in the first message")
            for number in message.cancel:
                if number >= len(self._tasks):
                    raise InvalidRequest.of("cancel", f"there are {len(self._tasks)} prompts")
                self._tasks[number].cancel()


async def receive_prompts(messages: Messages) -> list[pb.GenerateAtOnceRequest]:
    """Those of the stream's first message. Raises InvalidRequest where it has none."""
    first = await anext(messages, None)
    if first is None or not first.prompts:
        raise InvalidRequest.of("prompts", "the first message of the stream must carry them")
    return list(first.prompts)
