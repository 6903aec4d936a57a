"""One call of several prompts: what its caller does not read, and what it sends meanwhile, is bounded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from decoder_service.batch_call import MAX_UNREAD, BatchCall
from tandem.decoder.v1 import decoder_pb2 as pb

TOGETHER = 8


def message(prompts: int = 0, *, cancel: tuple[int, ...] = (), open: bool = False) -> pb.GenerateBatchRequest:
    wanted = [pb.GenerateAtOnceRequest()] * prompts
    return pb.GenerateBatchRequest(prompts=wanted, cancel=cancel, more_follow=open)


class Sender:
    """What the caller sends after its first message, and how much of it has been read."""

    def __init__(self, *messages: pb.GenerateBatchRequest) -> None:
        self._messages = messages
        self.read = 0

    async def messages(self) -> AsyncIterator[pb.GenerateBatchRequest]:
        for sent in self._messages:
            await asyncio.sleep(0)
            self.read += 1
            yield sent


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(5000):
        await asyncio.sleep(0)


async def at_once(prompt: pb.GenerateAtOnceRequest, arrived: float) -> pb.GenerateResponse:
    return pb.GenerateResponse(token_ids=[1])


def responses(
    call: BatchCall, sender: Sender, prompts: int
) -> AsyncGenerator[pb.GenerateBatchResponse, None]:
    return call.responses(message(prompts, open=True), sender.messages())


async def test_prompts_wait_while_answers_are_not_read() -> None:
    sender = Sender(*[message(TOGETHER)] * 1000)
    async with aclosing(responses(BatchCall(at_once), sender, 1)) as stream:
        first = await anext(stream)
        await settle()
        stopped = sender.read
        assert MAX_UNREAD <= stopped * TOGETHER <= MAX_UNREAD + 2 * TOGETHER
        rest = [answer.prompt async for response in stream for answer in response.answers]
    assert sender.read == 1000
    assert sorted([*(answer.prompt for answer in first.answers), *rest]) == list(range(1 + 1000 * TOGETHER))


async def test_a_cancel_does_not_wait_for_prompts_that_are_under_way() -> None:
    count, freed = MAX_UNREAD * 2, 0

    async def never(prompt: pb.GenerateAtOnceRequest, arrived: float) -> pb.GenerateResponse:
        nonlocal freed
        try:
            await asyncio.Event().wait()
        finally:
            freed += 1
        raise AssertionError

    sender = Sender(message(count - 1), message(cancel=tuple(range(count))))
    async with aclosing(responses(BatchCall(never), sender, 1)) as stream:
        assert [response async for response in stream] == []
    assert freed == count
