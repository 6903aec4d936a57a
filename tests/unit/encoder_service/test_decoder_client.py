"""The encoder's client of the decoder, against a real gRPC server that plays a full decoder."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import numpy as np
import pytest

from encoder_service.decoder_client import DecoderClient, DecodeRequest
from tandem.decoder.v1 import decoder_pb2 as pb
from tandem.decoder.v1 import decoder_pb2_grpc
from tandem.errors import CapabilityMissing, Overloaded, Unavailable
from tandem.rpc import handlers
from tandem.rpc.tensors import WireTensor


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
    server = grpc.aio.server()
    decoder_pb2_grpc.add_DecoderServiceServicer_to_server(decoder, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    client = DecoderClient(f"127.0.0.1:{port}", patience=patience)
    try:
        yield client
    finally:
        await client.close()
        await server.stop(None)


def request() -> DecodeRequest:
    embeds = WireTensor.of(np.zeros((5, 8), np.float32))
    return DecodeRequest("test", (1,), embeds, (2,), pb.SamplingParams(), "", final_only=True)


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
