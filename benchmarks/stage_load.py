"""Load on one tier by itself: so many segments in flight, the next sent as soon as one is done."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

import grpc
import grpc.aio
import numpy as np

from encoder_service.decoder_client import DecoderClient, DecodeRequest
from tandem.decoder.v1 import decoder_pb2
from tandem.encoder.v1 import encoder_pb2 as pb
from tandem.encoder.v1 import encoder_pb2_grpc
from tandem.encoder_client import MAX_TENSOR_BYTES, encode_requests
from tandem.plan.curve import Curve
from tandem.rpc.channels import channel_options
from tandem.rpc.tensors import TensorAssembler, WireTensor

PREFIX, SUFFIX = (1,) * 18, (1,) * 5
"""As many prompt tokens around the audio as the published template has; speed does not depend on which."""

Job = Callable[[int], Awaitable[float]]
"""Does the numbered piece of work; returns its units."""


async def closed_loop(job: Job, in_flight: int, seconds: float) -> float:
    """Units per second, counted from when every worker has done its first job."""
    finished: list[tuple[float, float]] = []
    warm: list[float] = []
    until = float("inf")

    async def work(number: int) -> None:
        nonlocal until
        await job(number)
        warm.append(time.perf_counter())
        if len(warm) == in_flight:
            until = warm[-1] + seconds
        while time.perf_counter() < until:
            number += in_flight
            units = await job(number)
            finished.append((time.perf_counter(), units))

    await asyncio.gather(*(work(index) for index in range(in_flight)))
    return sum(units for at, units in finished if warm[-1] < at <= until) / seconds


@dataclass(frozen=True, slots=True)
class TierLoad:
    """Real segments (16-bit samples at 16 kHz) for the two tiers behind the gateway."""

    segments: Sequence[bytes]
    seconds: float
    """Of each measurement."""

    async def encoder(self, target: str, in_flight: Sequence[int]) -> Curve:
        """Seconds of audio per second, embeddings and compact posteriors sent back."""
        async with grpc.aio.insecure_channel(target, options=channel_options()) as channel:
            stub: encoder_pb2_grpc.EncoderServiceAsyncStub = encoder_pb2_grpc.EncoderServiceStub(channel)

            async def job(number: int) -> float:
                pcm = self.segments[number % len(self.segments)]
                await encode(stub, pcm)
                return len(pcm) / 32_000

            return await self._curve(job, in_flight)

    async def decoder(self, target: str, encoder: str, in_flight: Sequence[int], tokens: int) -> Curve:
        """Tokens per second, each request a segment's embeddings and so many tokens."""
        async with grpc.aio.insecure_channel(encoder, options=channel_options()) as channel:
            stub: encoder_pb2_grpc.EncoderServiceAsyncStub = encoder_pb2_grpc.EncoderServiceStub(channel)
            embeds = [await encode(stub, pcm) for pcm in self.segments]
        sampling = decoder_pb2.SamplingParams(max_tokens=tokens, ignore_eos=True)
        client = DecoderClient(target)

        async def job(number: int) -> float:
            own = embeds[number % len(embeds)].copy()
            own[0, 0] += number * 1e-3  # seen before, its prompt would be found in the engine's cache
            request = DecodeRequest(str(number), PREFIX, WireTensor.of(own), SUFFIX, sampling, "")
            return float(sum([len(part.token_ids) async for part in client.generate(request)]))

        try:
            return await self._curve(job, in_flight)
        finally:
            await client.close()

    async def _curve(self, job: Job, in_flight: Sequence[int]) -> Curve:
        return Curve(
            tuple([(float(count), await closed_loop(job, count, self.seconds)) for count in in_flight])
        )


async def encode(
    stub: encoder_pb2_grpc.EncoderServiceAsyncStub, pcm: bytes
) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Embeddings [n, hidden] of one segment."""
    assembler = TensorAssembler(MAX_TENSOR_BYTES)
    async for response in stub.Encode(_later(encode_requests(pcm, pb.CTC_MODE_COMPACT))):
        if response.HasField("chunk"):
            assembler.add(response.chunk)
    return assembler.take("audio_embeds").float32()


async def _later(messages: Iterable[pb.EncodeRequest]) -> AsyncIterator[pb.EncodeRequest]:
    for message in messages:
        yield message
