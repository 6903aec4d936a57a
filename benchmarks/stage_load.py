"""Load on one tier by itself: so many segments in flight, the next sent as soon as one is done."""

from __future__ import annotations

import asyncio
import math
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

_BETTER_OF = 2
PREFIX, SUFFIX = (1,) * 18, (1,) * 5
"""As many prompt tokens around the audio as the published template has; speed does not depend on which."""

Job = Callable[[int], Awaitable[float]]
"""Does the numbered piece of work; returns its units."""


Clock = Callable[[], float]
"""Seconds: of the wall, or of a process, which count when others use the same processor."""


async def closed_loop(job: Job, in_flight: int, seconds: float, clock: Clock = time.perf_counter) -> float:
    """Units per second of the clock, for so many of them after every worker has done its first job."""
    warm, begin, units = 0, math.inf, 0.0

    async def work(number: int) -> None:
        nonlocal warm, begin, units
        await job(number)
        warm += 1
        if warm == in_flight:
            begin = clock()
        while clock() < begin + seconds:
            number += in_flight
            done = await job(number)
            if begin < clock() <= begin + seconds:
                units += done

    await asyncio.gather(*(work(index) for index in range(in_flight)))
    return units / seconds


@dataclass(frozen=True, slots=True)
class TierLoad:
    """Real segments (16-bit samples at 16 kHz) for the two tiers behind the gateway."""

    segments: Sequence[bytes]
    seconds: float
    """Of each measurement."""

    async def encoder(self, target: str, in_flight: Sequence[int], clock: Clock) -> Curve:
        """Seconds of audio per second, embeddings and compact posteriors sent back."""
        async with grpc.aio.insecure_channel(target, options=channel_options()) as channel:
            stub: encoder_pb2_grpc.EncoderServiceAsyncStub = encoder_pb2_grpc.EncoderServiceStub(channel)

            async def job(number: int) -> float:
                pcm = self.segments[number % len(self.segments)]
                await encode(stub, pcm)
                return len(pcm) / 32_000

            return await self._curve(job, in_flight, clock)

    async def decoder(
        self, target: str, encoder: str, in_flight: Sequence[int], tokens_per_second: float, clock: Clock
    ) -> Curve:
        """Tokens per second, each request a segment's embeddings and as many tokens as its speech has."""
        async with grpc.aio.insecure_channel(encoder, options=channel_options()) as channel:
            stub: encoder_pb2_grpc.EncoderServiceAsyncStub = encoder_pb2_grpc.EncoderServiceStub(channel)
            embeds = [await encode(stub, pcm) for pcm in self.segments]
        client = DecoderClient(target)

        async def job(number: int) -> float:
            own, pcm = embeds[number % len(embeds)].copy(), self.segments[number % len(embeds)]
            tokens = max(1, round(tokens_per_second * len(pcm) / 32_000))
            sampling = decoder_pb2.SamplingParams(max_tokens=tokens, ignore_eos=True)
            own[0, 0] += number * 1e-3  # seen before, its prompt would be found in the engine's cache
            request = DecodeRequest(str(number), PREFIX, WireTensor.of(own), SUFFIX, sampling, "")
            return float(sum([len(part.token_ids) async for part in client.generate(request)]))

        try:
            return await self._curve(job, in_flight, clock)
        finally:
            await client.close()

    async def _curve(self, job: Job, in_flight: Sequence[int], clock: Clock) -> Curve:
        points = []
        for count in in_flight:
            runs = [await closed_loop(job, count, self.seconds, clock) for _ in range(_BETTER_OF)]
            points.append((float(count), max(runs)))
        return Curve(tuple(points))


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
