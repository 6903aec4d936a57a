"""The encoder's client of the decoder, against a real gRPC server that plays a full decoder."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest

from encoder_service import batch_calls
from encoder_service.batch_calls import MAX_BYTES
from encoder_service.decoder_client import DecoderClient, DecodeRequest
from tandem.decoder.v1 import decoder_pb2 as pb
from tandem.decoder.v1 import decoder_pb2_grpc
from tandem.errors import CapabilityMissing, DeadlineExceeded, Overloaded, Unavailable
from tandem.rpc import handlers
from tandem.rpc.channels import server_options
from tandem.rpc.status import to_status
from tandem.rpc.tensors import WireTensor
from tests.support.ports import free_port


class Decoder(decoder_pb2_grpc.DecoderServiceServicer):
    """Refuses as often as it is told, then answers with the number of embeddings it was sent."""

    def __init__(self, refusals: int) -> None:
        self.refusals, self.calls = refusals, 0

    @handlers.streaming
    async def Generate(self, requests: Any, context: Any) -> AsyncIterator[pb.GenerateResponse]:
        self.calls += 1
        if self.calls <= self.refusals:
            raise Overloaded("full", retry_after=0.01)
        rows = 0
        async for request in requests:
            rows += request.chunk.spec.shape[0] if request.HasField("chunk") else 0
        yield pb.GenerateResponse(token_ids=[rows], result=pb.GenerateResult())

    @handlers.streaming
    async def GenerateBatch(self, requests: Any, context: Any) -> AsyncIterator[pb.GenerateBatchResponse]:
        raise CapabilityMissing("a decoder of an earlier release")
        yield

    @handlers.unary
    async def GenerateAtOnce(self, request: Any, context: Any) -> pb.GenerateAtOnceResponse:
        raise CapabilityMissing("a decoder of an earlier release")

    @handlers.unary
    async def GetModelInfo(self, request: Any, context: Any) -> pb.GetModelInfoResponse:
        raise Unavailable("not asked")

    @handlers.unary
    async def GetLoad(self, request: Any, context: Any) -> pb.GetLoadResponse:
        raise Unavailable("not asked")


@contextlib.asynccontextmanager
async def client_of(decoder: Decoder, patience: float) -> AsyncIterator[DecoderClient]:
    server = grpc.aio.server(options=server_options())
    decoder_pb2_grpc.add_DecoderServiceServicer_to_server(decoder, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    client = DecoderClient(f"127.0.0.1:{port}", patience=patience)
    try:
        yield client
    finally:
        await client.close()
        await server.stop(None)


class BatchDecoder(Decoder):
    """Answers like the other, all prompts of a message together but for the ids in `holds`, never answered.

    `batches` has the ids of each message, `calls` counts calls and `open` those that have not ended.
    """

    def __init__(self, refuses: Collection[str] = (), holds: Collection[str] = ()) -> None:
        super().__init__(refusals=0)
        self.refuses, self.holds = set(refuses), set(holds)
        self.batches: list[list[str]] = []
        self.cancelled: list[int] = []
        self.open = 0
        self.breaks = asyncio.Event()

    @handlers.streaming
    async def GenerateBatch(self, requests: Any, context: Any) -> AsyncIterator[pb.GenerateBatchResponse]:
        self.calls += 1
        self.open += 1
        known = 0
        try:
            while (message := await self._next(requests)) is not None:
                self.cancelled += message.cancel
                if not message.prompts:
                    continue
                assert known or message.more_follow
                names = [prompt.config.request_id for prompt in message.prompts]
                self.batches.append(names)
                answers = [self._answer(known + place, one) for place, one in enumerate(message.prompts)]
                kept = [answer for answer, name in zip(answers, names, strict=True) if name not in self.holds]
                known += len(names)
                yield pb.GenerateBatchResponse(answers=kept)
        finally:
            self.open -= 1

    async def _next(self, requests: Any) -> pb.GenerateBatchRequest | None:
        """None when the caller sends no more, or the call breaks off, which it does only once."""
        message = asyncio.create_task(anext(requests, None))
        breaks = asyncio.create_task(self.breaks.wait())
        await asyncio.wait([message, breaks], return_when=asyncio.FIRST_COMPLETED)
        breaks.cancel()
        if self.breaks.is_set():
            self.breaks.clear()
            message.cancel()
            return None
        return await message

    def _answer(self, number: int, prompt: pb.GenerateAtOnceRequest) -> pb.BatchedAnswer:
        if prompt.config.request_id in self.refuses:
            self.refuses.remove(prompt.config.request_id)
            error = to_status(Overloaded("full", retry_after=0.01)).SerializeToString()
            return pb.BatchedAnswer(prompt=number, error=error)
        rows = prompt.config.prompt[1].embeddings.spec.shape[0]
        answer = pb.GenerateResponse(token_ids=[rows], result=pb.GenerateResult())
        return pb.BatchedAnswer(prompt=number, answer=answer)


class DyingDecoder(Decoder):
    """Streams the tokens of one answer after another, `size` in a message; all but the last break off."""

    def __init__(self, answers: list[list[int]], size: int) -> None:
        super().__init__(refusals=0)
        self.answers, self.size = answers, size

    @handlers.streaming
    async def Generate(self, requests: Any, context: Any) -> AsyncIterator[pb.GenerateResponse]:
        self.calls += 1
        token_ids = self.answers[self.calls - 1]
        for first in range(0, len(token_ids), self.size):
            yield pb.GenerateResponse(token_ids=token_ids[first : first + self.size])
        if self.calls < len(self.answers):
            raise Unavailable("going")
        yield pb.GenerateResponse(result=pb.GenerateResult(completion_tokens=len(token_ids)))


class BreakingDecoder:
    """Answers from threads of its own, and breaks off its first call when it is told to."""

    def __init__(self) -> None:
        self.calls = 0
        self.breaks = threading.Event()

    def serve(self, server: grpc.Server) -> None:
        answers = grpc.stream_stream_rpc_method_handler(
            self._answers, pb.GenerateBatchRequest.FromString, pb.GenerateBatchResponse.SerializeToString
        )
        service, method = batch_calls.METHOD.strip("/").split("/")
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {method: answers})])

    def _answers(self, requests: Any, context: Any) -> Iterator[pb.GenerateBatchResponse]:
        self.calls += 1
        is_first = self.calls == 1
        answer = pb.GenerateResponse(token_ids=[self.calls], result=pb.GenerateResult())
        for message in requests:
            if message.prompts:
                yield pb.GenerateBatchResponse(answers=[pb.BatchedAnswer(prompt=0, answer=answer)])
            if is_first:
                assert self.breaks.wait(10)
                context.abort(grpc.StatusCode.UNAVAILABLE, "going")


def request(name: str = "test", rows: int = 5) -> DecodeRequest:
    embeds = WireTensor.of(np.zeros((rows, 8), np.float32))
    return DecodeRequest(name, (1,), embeds, (2,), pb.SamplingParams(), "", final_only=True)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.01)


async def tokens(client: DecoderClient, asked: DecodeRequest, timeout: float | None = None) -> list[int]:
    return [token async for answer in client.generate(asked, timeout) for token in answer.token_ids]


async def test_embeddings_wait_for_a_full_decoder_and_are_sent_again() -> None:
    decoder = Decoder(refusals=3)
    async with client_of(decoder, patience=30.0) as client:
        answers = [answer async for answer in client.generate(request())]
    assert [list(answer.token_ids) for answer in answers] == [[5]]
    assert decoder.calls == 4


async def test_patience_ends_with_the_decoders_own_refusal() -> None:
    decoder = Decoder(refusals=1000)
    async with client_of(decoder, patience=0.3) as client:
        with pytest.raises(Overloaded) as refused:
            async for _ in client.generate(request()):
                pass
    assert refused.value.retry_after == pytest.approx(0.01)
    assert 1 < decoder.calls < 30


@pytest.mark.parametrize("size", [1, 2, 4, 9])
async def test_an_answer_that_broke_off_goes_on_where_it_did(size: int) -> None:
    decoder = DyingDecoder([[7, 8, 9], [7], [7, 8, 9, 10, 11]], size)
    async with client_of(decoder, patience=1.0) as client:
        assert await tokens(client, replace(request(), final_only=False)) == [7, 8, 9, 10, 11]
    assert decoder.calls == 3


@pytest.mark.parametrize("size", [1, 2, 9])
@pytest.mark.parametrize(
    ("again", "says"),
    [([7, 6, 9, 10, 11], "other tokens"), ([6], "other tokens"), ([7, 8], "ends after 2 tokens")],
)
async def test_an_answer_that_broke_off_is_not_completed_by_another_one(
    again: list[int], says: str, size: int
) -> None:
    decoder = DyingDecoder([[7, 8, 9], again], size)
    heard: list[int] = []
    async with client_of(decoder, patience=1.0) as client:
        with pytest.raises(Unavailable, match=says):
            async for answer in client.generate(replace(request(), final_only=False)):
                heard += answer.token_ids
                assert not answer.HasField("result")
    assert heard == [7, 8, 9]
    assert decoder.calls == 2


async def test_what_comes_at_the_same_time_shares_calls_of_eight() -> None:
    decoder = BatchDecoder()
    async with client_of(decoder, patience=1.0) as client:
        asked = [request(str(number), rows=number + 1) for number in range(10)]
        answers = await asyncio.gather(*(tokens(client, one) for one in asked))
        await tokens(client, request("later"))
    assert answers == [[number + 1] for number in range(10)]
    assert sorted(decoder.batches) == [[*"01234567"], [*"89"], ["later"]]
    assert decoder.calls == 2


async def test_prompts_that_come_later_find_a_call_open() -> None:
    decoder = BatchDecoder()
    async with client_of(decoder, patience=1.0) as client:
        for rows in (1, 2, 3):
            assert await tokens(client, request(str(rows), rows)) == [rows]
    assert decoder.batches == [["1"], ["2"], ["3"]]
    assert decoder.calls == 1


async def test_a_call_that_broke_off_while_it_was_idle_is_not_used_again() -> None:
    decoder = BatchDecoder()
    async with client_of(decoder, patience=1.0) as client:
        await tokens(client, request("a"))
        decoder.breaks.set()
        await until(lambda: not decoder.open)
        assert await tokens(client, request("b")) == [5]
    assert (decoder.batches, decoder.calls) == ([["a"], ["b"]], 2)


async def test_a_call_takes_no_more_prompts_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_calls, "OPEN_SECONDS", 0.2)
    decoder = BatchDecoder(holds={"slow"})
    async with client_of(decoder, patience=1.0) as client:
        await tokens(client, request("idle when its time is over"))
        slow = asyncio.create_task(tokens(client, request("slow")))
        await until(lambda: len(decoder.batches) == 2)
        await asyncio.sleep(0.3)
        assert await tokens(client, request("new")) == [5]
        assert (decoder.calls, decoder.open) == (2, 2)
        await until(lambda: decoder.open == 1)  # What waits for an answer is waited for.
        slow.cancel()
        await until(lambda: decoder.open == 0)
    assert decoder.cancelled == [1]


async def test_large_prompts_share_no_call() -> None:
    decoder = BatchDecoder()
    rows = MAX_BYTES // 2 // 8 // 4
    async with client_of(decoder, patience=1.0) as client:
        asked = [request("a", rows), request("b", rows + 1), request("c")]
        answers = await asyncio.gather(*(tokens(client, one) for one in asked))
    assert answers == [[rows], [rows + 1], [5]]
    assert sorted(decoder.batches) == [["a"], ["b", "c"]]


async def test_a_refused_prompt_is_sent_again_without_its_mates() -> None:
    decoder = BatchDecoder(refuses={"b"})
    async with client_of(decoder, patience=30.0) as client:
        answers = await asyncio.gather(*(tokens(client, request(name)) for name in "abc"))
    assert answers == [[5]] * 3
    assert decoder.batches == [["a", "b", "c"], ["b"]]


async def test_who_leaves_or_waits_too_long_is_cancelled_there_and_loses_nothing_of_others() -> None:
    decoder = BatchDecoder(holds={"left", "late"})
    async with client_of(decoder, patience=1.0) as client:
        left = asyncio.create_task(tokens(client, request("left")))
        late = asyncio.create_task(tokens(client, request("late"), timeout=0.2))
        answered = asyncio.create_task(tokens(client, request("answered")))
        assert await answered == [5]
        left.cancel()
        with pytest.raises(DeadlineExceeded):
            await late
        await until(lambda: len(decoder.cancelled) == 2)
    assert decoder.batches == [["left", "late", "answered"]]
    assert decoder.cancelled == [0, 1]


async def test_a_call_that_breaks_off_is_repeated_for_the_prompts_without_an_answer() -> None:
    decoder = BatchDecoder(holds={"b"})
    async with client_of(decoder, patience=1.0) as client:
        answered = asyncio.create_task(tokens(client, request("a")))
        waiting = asyncio.create_task(tokens(client, request("b")))
        assert await answered == [5]
        decoder.holds = set()
        decoder.breaks.set()
        assert await waiting == [5]
    assert decoder.batches == [["a", "b"], ["b"]]


async def test_a_prompt_that_is_written_to_a_call_that_just_ended_is_sent_again() -> None:
    decoder, server = BreakingDecoder(), grpc.server(ThreadPoolExecutor(4))
    decoder.serve(server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    client = DecoderClient(f"127.0.0.1:{port}", patience=1.0)
    assert await tokens(client, request("a")) == [1]
    decoder.breaks.set()
    time.sleep(0.3)  # The end comes in while this loop stands still, so the write is what meets it.
    assert await tokens(client, request("b")) == [2]
    await client.close()
    server.stop(None)


async def test_it_connects_before_there_are_prompts() -> None:
    came = asyncio.Event()

    def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.set()
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        client = DecoderClient(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        async with asyncio.timeout(10):
            await came.wait()
        await client.close()


async def test_every_prompt_of_a_call_hears_that_nobody_is_there() -> None:
    client = DecoderClient(f"127.0.0.1:{free_port()}")
    outcomes = await asyncio.gather(*(tokens(client, request(name)) for name in "ab"), return_exceptions=True)
    await client.close()
    assert [type(outcome) for outcome in outcomes] == [Unavailable, Unavailable]
