"""The pool of encoders against real gRPC servers in this process that play encoders in trouble."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import numpy as np
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from numpy.typing import NDArray

from gateway.backends.pool import EncoderPool
from gateway.backends.segment_call import SegmentRequest
from gateway.backends.targets import is_pool, resolver
from gateway.text.posteriors import CtcPosteriors
from gateway.text.prompt import Prompt
from tandem.access import Access
from tandem.encoder.v1 import encoder_pb2 as pb
from tandem.encoder.v1 import encoder_pb2_grpc
from tandem.errors import Overloaded, TandemError, Unavailable
from tandem.rpc import handlers


class Encoder(encoder_pb2_grpc.EncoderServiceServicer):
    """Answers with one token, or fails."""

    def __init__(self, model_hash: str = "a", speed: float = 100.0) -> None:
        self.model_hash, self.speed = model_hash, speed
        self.failure: TandemError | None = None
        self.queued = 0.0
        self.calls = 0
        self.health = health.aio.HealthServicer()

    @handlers.streaming
    async def Transcribe(self, requests: Any, context: Any) -> AsyncIterator[pb.TranscribeResponse]:
        self.calls += 1
        if self.failure is not None:
            raise self.failure
        async for _ in requests:
            continue
        yield pb.TranscribeResponse(header=pb.EncodeHeader(num_embeds=1))
        yield pb.TranscribeResponse(timing=pb.TranscribeTiming())

    @handlers.streaming
    async def Encode(self, requests: Any, context: Any) -> AsyncIterator[pb.EncodeResponse]:
        raise Unavailable("the pool transcribes only")
        yield

    @handlers.streaming
    async def GetTokenizers(self, request: Any, context: Any) -> AsyncIterator[pb.GetTokenizersResponse]:
        yield pb.GetTokenizersResponse(file_name="tokenizer.json", data=self.model_hash.encode())

    @handlers.unary
    async def GetModelInfo(self, request: Any, context: Any) -> pb.GetModelInfoResponse:
        return pb.GetModelInfoResponse(model="m", model_hash=self.model_hash)

    @handlers.unary
    async def GetLoad(self, request: Any, context: Any) -> pb.GetLoadResponse:
        return pb.GetLoadResponse(queued_audio_seconds=self.queued, audio_seconds_per_second=self.speed)

    async def serving(self, yes: bool) -> None:
        kind = health_pb2.HealthCheckResponse
        await self.health.set("", kind.SERVING if yes else kind.NOT_SERVING)


@contextlib.asynccontextmanager
async def running(*encoders: Encoder) -> AsyncIterator[EncoderPool]:
    """A pool that knows all of them and has heard of their load."""
    servers, addresses = [], []
    for encoder in encoders:
        server = grpc.aio.server()
        encoder_pb2_grpc.add_EncoderServiceServicer_to_server(encoder, server)
        health_pb2_grpc.add_HealthServicer_to_server(encoder.health, server)
        addresses.append(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
        await encoder.serving(True)
        await server.start()
        servers.append(server)
    pool = EncoderPool(resolver(",".join(addresses)), Access())
    try:
        await pool.model_info()
        await settle()
        yield pool
    finally:
        await pool.close()
        for server in servers:
            await server.stop(None)


async def settle() -> None:
    """Long enough for another round of load reports."""
    await asyncio.sleep(0.6)


async def send(pool: EncoderPool, seconds: float = 1.0) -> None:
    samples = np.zeros(round(seconds * 16_000), np.float32)
    await pool.transcribe(SegmentRequest(samples, Prompt("", "", (), ()), 1, "test"), ctc=False)


async def test_the_encoder_that_other_gateways_keep_busy_is_left_alone() -> None:
    busy, idle = Encoder(), Encoder()
    busy.queued = 500.0
    async with running(busy, idle) as pool:
        for _ in range(5):
            await send(pool)
    assert (busy.calls, idle.calls) == (0, 5)


async def test_an_encoder_that_answers_no_targets_is_asked_for_none() -> None:
    async def name(token_ids: tuple[int, ...], posteriors: CtcPosteriors) -> NDArray[np.int64]:
        raise AssertionError("the encoder would have waited for the end of the stream")

    samples = np.zeros(16_000, np.float32)
    request = SegmentRequest(samples, Prompt("", "", (), ()), 1, "test", name_targets=name)
    async with running(Encoder()) as pool, asyncio.timeout(10):
        assert (await pool.transcribe(request, ctc=True)).targets is None


async def test_a_full_queue_sends_the_segment_on_and_two_full_ones_refuse_it() -> None:
    first, second = Encoder(), Encoder()
    first.failure = Overloaded("full", retry_after=9.0)
    async with running(first, second) as pool:
        await asyncio.gather(*(send(pool) for _ in range(4)))
        assert second.calls == 4
        second.failure = Overloaded("full", retry_after=2.0)
        with pytest.raises(Overloaded) as refused:
            await send(pool)
        assert refused.value.retry_after == 2.0


async def test_a_draining_encoder_gets_nothing_new_until_it_is_back() -> None:
    first, second = Encoder(speed=1000.0), Encoder()
    async with running(first, second) as pool:
        await first.serving(False)
        await settle()
        await send(pool)
        assert (first.calls, second.calls) == (0, 1)
        await first.serving(True)
        await settle()
        await send(pool)
        assert first.calls == 1


async def test_an_encoder_of_another_checkpoint_is_never_used() -> None:
    ours, foreign = Encoder("a"), Encoder("b", speed=1000.0)
    async with running(ours, foreign) as pool:
        pool_hash = (await pool.model_info()).model_hash
        right, wrong = (ours, foreign) if pool_hash == "a" else (foreign, ours)
        right.failure = Unavailable("gone")
        await settle()
        with pytest.raises(Unavailable):
            await send(pool)
        assert wrong.calls == 0


async def test_names_become_addresses() -> None:
    assert is_pool("dns:///localhost:50052") and is_pool("a:1,b:2") and not is_pool("a:1")
    found = await resolver("dns:///localhost:50052")()
    assert "ipv4:127.0.0.1:50052" in found
    assert await resolver("a:1, b:2,")() == {"a:1", "b:2"}
    with pytest.raises(ValueError, match="dns:///name:port"):
        resolver("dns:///localhost")
