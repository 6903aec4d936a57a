"""The pool of encoders against real gRPC servers in this process that play encoders in trouble."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import numpy as np
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from numpy.typing import NDArray

from encoder_service.messages import CompactCtc
from encoder_service.responses import compact_message
from gateway.backends.encoder import EncoderBackend
from gateway.backends.live import LiveLine, Part
from gateway.backends.pool import EncoderPool, connect_encoders
from gateway.backends.segment_call import SegmentRequest, SegmentResult
from gateway.backends.targets import is_pool, resolver
from gateway.readiness import follow_encoders
from gateway.session.ring import AudioRing
from gateway.text.posteriors import CtcPosteriors
from gateway.text.prompt import Prompt
from tandem.access import Access
from tandem.encoder.v1 import encoder_pb2 as pb
from tandem.encoder.v1 import encoder_pb2_grpc
from tandem.errors import Overloaded, TandemError, Unavailable
from tandem.rpc import handlers
from tandem.rpc.server import ServerConfig, TierServer

_ONE = np.zeros((1, 1), np.float32)
POSTERIORS = CompactCtc(_ONE.astype(np.int32), _ONE, _ONE[0], _ONE[0], vocab_size=3, blank_id=2)


class Encoder(encoder_pb2_grpc.EncoderServiceServicer):
    """Answers with one token, or fails."""

    def __init__(self, model_hash: str = "a", speed: float = 100.0) -> None:
        self.model_hash, self.speed = model_hash, speed
        self.failure: TandemError | None = None
        self.queued = 0.0
        self.calls = 0
        self.live_bytes = self.mute = 0
        self.lines = 0
        self.aligns = False
        self.released: list[int] = []
        self.cancelled: list[int] = []
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
    async def TranscribeLive(self, requests: Any, context: Any) -> AsyncIterator[pb.TranscribeLiveResponse]:
        """Hears how many samples a segment has; spans that end at `mute` get no answer."""
        self.calls += 1
        self.lines += 1
        context.add_done_callback(self._line_ended)
        segments: dict[int, int] = {}
        async for request in requests:
            if self.failure is not None:
                raise self.failure
            for number in request.release:
                self.released.append(segments.pop(number))
            self.cancelled += request.cancel
            self.live_bytes += len(request.audio)
            if request.audio:
                segments[request.segment] = segments.get(request.segment, 0) + len(request.audio) // 2
            if request.HasField("span") and request.span.targets_follow:
                answer = pb.TranscribeLiveResponse(id=request.span.id, token_ids=[7])
                answer.compact_ctc.CopyFrom(compact_message(POSTERIORS))
                yield answer
            elif request.HasField("span") and request.span.end != self.mute:
                path = pb.CtcPath(token_ids=[segments[request.segment]], frames=[request.span.start])
                yield pb.TranscribeLiveResponse(id=request.span.id, path=path)

    def _line_ended(self, context: Any) -> None:
        self.lines -= 1

    @handlers.streaming
    async def Encode(self, requests: Any, context: Any) -> AsyncIterator[pb.EncodeResponse]:
        raise Unavailable("the pool transcribes only")
        yield

    @handlers.streaming
    async def GetTokenizers(self, request: Any, context: Any) -> AsyncIterator[pb.GetTokenizersResponse]:
        yield pb.GetTokenizersResponse(file_name="tokenizer.json", data=self.model_hash.encode())

    @handlers.unary
    async def GetModelInfo(self, request: Any, context: Any) -> pb.GetModelInfoResponse:
        return pb.GetModelInfoResponse(model="m", model_hash=self.model_hash, aligns_targets=self.aligns)

    @handlers.unary
    async def GetLoad(self, request: Any, context: Any) -> pb.GetLoadResponse:
        return pb.GetLoadResponse(queued_audio_seconds=self.queued, audio_seconds_per_second=self.speed)

    async def serving(self, yes: bool) -> None:
        kind = health_pb2.HealthCheckResponse
        await self.health.set("", kind.SERVING if yes else kind.NOT_SERVING)


@contextlib.asynccontextmanager
async def listening(*encoders: Encoder) -> AsyncIterator[list[str]]:
    """Their addresses."""
    servers, addresses = [], []
    for encoder in encoders:
        server = grpc.aio.server()
        encoder_pb2_grpc.add_EncoderServiceServicer_to_server(encoder, server)
        health_pb2_grpc.add_HealthServicer_to_server(encoder.health, server)
        addresses.append(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
        await encoder.serving(True)
        await server.start()
        servers.append(server)
    try:
        yield addresses
    finally:
        for server in servers:
            await server.stop(None)


@contextlib.asynccontextmanager
async def running(*encoders: Encoder, **options: float) -> AsyncIterator[EncoderPool]:
    """A pool that knows all of them and has heard of their load."""
    async with listening(*encoders) as addresses:
        pool = EncoderPool(resolver(",".join(addresses)), Access(), **options)
        try:
            await pool.model_info()
            await settle()
            yield pool
        finally:
            await pool.close()


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
    def name(token_ids: tuple[int, ...], posteriors: CtcPosteriors) -> NDArray[np.int64]:
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


@pytest.mark.parametrize("several", ["", ","], ids=["one address", "a pool"])
async def test_readiness_goes_with_the_last_encoder_and_comes_back_with_it(several: str) -> None:
    only = Encoder()
    server = TierServer(ServerConfig("unix:unused"), [])
    async with listening(only) as (address,):
        encoder = connect_encoders(address + several, Access())
        await server.ready()
        following = asyncio.create_task(follow_encoders(encoder, server, grace_seconds=1.5))
        try:
            await settle()
            await only.serving(False)
            lost = time.monotonic()
            async with asyncio.timeout(20):
                while server.is_ready:
                    await asyncio.sleep(0.05)
                assert time.monotonic() - lost > 0.9, "the grace, less the time between two looks"
                await only.serving(True)
                while not server.is_ready:
                    await asyncio.sleep(0.05)
        finally:
            following.cancel()
            await encoder.close()


async def test_names_become_addresses() -> None:
    assert is_pool("dns:///localhost:50052") and is_pool("a:1,b:2") and not is_pool("a:1")
    found = await resolver("dns:///localhost:50052")()
    assert "ipv4:127.0.0.1:50052" in found
    assert await resolver("a:1, b:2,")() == {"a:1", "b:2"}
    with pytest.raises(ValueError, match="dns:///name:port"):
        resolver("dns:///localhost")


RING = AudioRing()
for _ in range(50):
    RING.append(np.zeros(1600, dtype=np.int16))


def part(segment: int, start: int, end: int, begin: int = 0) -> Part:
    """Samples [start, end) of a segment that begins at sample `begin`."""
    return Part(segment, RING.clip(begin, end), start, end)


async def heard(line: LiveLine, wanted: Part) -> list[int]:
    """How many samples of the segment the encoder has, and where the span begins in the segment."""
    path = await line.current().path(wanted)
    return [*path.token_ids, *path.frames]


async def test_live_audio_is_sent_once_and_released() -> None:
    encoder = Encoder()
    async with running(encoder) as pool:
        line = LiveLine(pool.live)
        assert await heard(line, part(0, 0, 8_000)) == [8_000, 0]
        assert await heard(line, part(0, 3_200, 24_000)) == [24_000, 3_200]
        assert await heard(line, part(0, 1_600, 16_000)) == [24_000, 1_600]
        line.release(0)
        assert await heard(line, part(1, 32_000, 40_000, begin=30_400)) == [9_600, 1_600]
        assert encoder.live_bytes == 2 * (24_000 + 9_600)
        assert (encoder.released, encoder.calls) == ([24_000], 1)
        line.close()


async def test_a_text_that_has_come_outlives_its_line_though_its_words_cannot_be_timed_exactly() -> None:
    encoder = Encoder()
    encoder.aligns = True
    seen: list[tuple[int, ...]] = []

    async def on_tokens(result: SegmentResult) -> None:
        seen.append(result.token_ids)
        encoder.failure = Unavailable("the encoder is gone")

    request = SegmentRequest(
        np.zeros(8_000, np.float32),
        Prompt("", "", (), ()),
        1,
        "test",
        name_targets=lambda token_ids, posteriors: np.array([1]),
        on_tokens=on_tokens,
    )
    async with running(encoder) as pool, asyncio.timeout(10):
        line = LiveLine(pool.live)
        result = await line.current().transcribe(part(0, 0, 8_000), request, ctc=True)
        assert (seen, result.token_ids, result.targets) == ([(7,)], (7,), None)
        line.close()


async def test_live_audio_moves_when_its_encoder_goes_and_is_sent_anew() -> None:
    first, second = Encoder(speed=200.0), Encoder()
    async with running(first, second) as pool:
        line = LiveLine(pool.live)
        assert await heard(line, part(0, 0, 8_000)) == [8_000, 0]
        # Draining: it still answers, but nothing new goes there.
        await first.serving(False)
        await settle()
        assert await heard(line, part(0, 0, 16_000)) == [16_000, 0]
        assert (first.live_bytes, second.live_bytes) == (16_000, 32_000)
        # Dead: what is out fails, the next part goes elsewhere at once.
        await first.serving(True)
        await settle()
        second.failure = Unavailable("going down")
        with pytest.raises(Unavailable):
            await heard(line, part(0, 0, 24_000))
        assert await heard(line, part(0, 0, 24_000)) == [24_000, 0]
        assert first.live_bytes == 16_000 + 48_000
        line.close()


async def test_live_audio_leaves_an_encoder_whose_address_is_gone() -> None:
    first, second = Encoder(speed=300.0), Encoder()
    async with listening(first, second) as addresses, asyncio.timeout(20):
        known = set(addresses)

        async def resolve() -> frozenset[str]:
            return frozenset(known)

        # Without a limit to the time it may take: an encoder that is not there would be waited for for ever.
        pool = EncoderPool(resolve, Access(), live_timeout=0.0)
        await pool.model_info()
        await settle()
        talking, silent = LiveLine(pool.live), LiveLine(pool.live)
        for line in (talking, silent):
            assert await heard(line, part(0, 0, 8_000)) == [8_000, 0]
        assert (first.lines, second.lines) == (2, 0)
        known.remove(addresses[0])
        # It still answers, as an encoder does that is going to be stopped.
        while not second.calls:
            assert await heard(talking, part(0, 0, 8_000)) == [8_000, 0]
            await asyncio.sleep(0.05)
        await settle()
        assert first.lines == 1, "the silent one has time to move too"
        # But who says nothing for long does not keep it known.
        while first.lines:
            await asyncio.sleep(0.05)
        assert await heard(silent, part(0, 0, 16_000)) == [16_000, 0]
        assert (first.calls, second.calls, second.lines) == (2, 2, 2)
        for line in (talking, silent):
            line.close()
        await pool.close()


async def test_what_is_out_when_the_channel_is_closed_fails() -> None:
    encoder = Encoder()
    encoder.mute = 16_000
    async with listening(encoder) as (address,), asyncio.timeout(10):
        backend = EncoderBackend(address)
        link = backend.live()
        waiting = asyncio.create_task(link.path(part(0, 0, 16_000)))
        await asyncio.sleep(0)
        await link.path(part(0, 0, 8_000))
        await backend.close()
        with pytest.raises(Unavailable):
            await waiting
        assert not link.is_usable


async def test_an_encoder_that_was_left_while_it_worked_is_free_when_it_has_answered() -> None:
    first, second = Encoder(speed=240.0), Encoder()
    first.aligns = second.aligns = True
    has_text, go_on = asyncio.Event(), asyncio.Event()

    async def on_tokens(result: SegmentResult) -> None:
        has_text.set()
        await go_on.wait()

    request = SegmentRequest(
        np.zeros(8_000, np.float32),
        Prompt("", "", (), ()),
        1,
        "test",
        name_targets=lambda token_ids, posteriors: np.empty(0, np.int64),
        on_tokens=on_tokens,
    )
    async with running(first, second) as pool, asyncio.timeout(20):
        line = LiveLine(pool.live)
        working = asyncio.create_task(line.current().transcribe(part(0, 0, 8_000), request, ctc=True))
        await has_text.wait()
        await first.serving(False)
        await settle()
        assert await heard(line, part(1, 0, 8_000)) == [8_000, 0]
        assert (first.lines, second.lines) == (1, 1)
        go_on.set()
        assert (await working).token_ids == (7,)
        await first.serving(True)
        await settle()
        assert (first.lines, second.lines) == (0, 1)
        # Were it still counted there, the last of these would find more room at the slower one.
        newcomers = [LiveLine(pool.live) for _ in range(4)]
        for newcomer in newcomers:
            await heard(newcomer, part(0, 0, 8_000))
        assert (first.lines, second.lines) == (4, 1)
        for each in (line, *newcomers):
            each.close()


async def test_live_sessions_are_shared_out_by_speed() -> None:
    slow, fast = Encoder(), Encoder(speed=300.0)
    async with running(slow, fast) as pool:
        lines = [LiveLine(pool.live) for _ in range(8)]
        for line in lines:
            await heard(line, part(0, 0, 8_000))
        assert (slow.calls, fast.calls) == (2, 6)
        for line in lines[:4]:
            line.close()
        for _ in range(4):
            lines.append(LiveLine(pool.live))
            await heard(lines[-1], part(0, 0, 8_000))
        assert (slow.calls, fast.calls) == (3, 9)
        for line in lines:
            line.close()


async def test_a_live_part_can_be_given_up_and_a_closed_line_fails_what_is_out() -> None:
    encoder = Encoder()
    encoder.mute = 16_000
    async with running(encoder) as pool:
        line = LiveLine(pool.live)
        waiting = asyncio.create_task(heard(line, part(0, 0, 16_000)))
        await asyncio.sleep(0)
        assert await heard(line, part(0, 0, 8_000)) == [16_000, 0]
        waiting.cancel()
        await asyncio.sleep(0)
        assert await heard(line, part(0, 0, 8_000)) == [16_000, 0]
        assert encoder.cancelled == [1]
        waiting = asyncio.create_task(heard(line, part(0, 0, 16_000)))
        await asyncio.sleep(0)
        assert await heard(line, part(0, 0, 8_000)) == [16_000, 0]
        line.close()
        with pytest.raises(Unavailable):
            await waiting


async def test_live_speech_leaves_an_encoder_that_answers_but_encodes_nothing() -> None:
    stuck, other = Encoder(speed=200.0), Encoder()
    stuck.mute = 16_000
    async with running(stuck, other, live_timeout=0.3) as pool, asyncio.timeout(10):
        line = LiveLine(pool.live)
        assert await heard(line, part(0, 0, 8_000)) == [8_000, 0]
        with pytest.raises(Unavailable, match="encoded nothing"):
            await heard(line, part(0, 0, 16_000))
        await settle()
        # Its reports are those of an idle encoder, and yet nothing new goes there.
        assert await heard(line, part(0, 0, 16_000)) == [16_000, 0]
        newcomer = LiveLine(pool.live)
        assert await heard(newcomer, part(0, 0, 8_000)) == [8_000, 0]
        assert (stuck.calls, other.calls) == (1, 2)
        for each in (line, newcomer):
            each.close()


async def test_an_encoder_without_another_beside_it_is_waited_for() -> None:
    slow = Encoder()
    slow.mute = 16_000
    async with running(slow, live_timeout=0.1) as pool:
        line = LiveLine(pool.live)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(heard(line, part(0, 0, 16_000)), 1.0)
        assert await heard(line, part(0, 0, 8_000)) == [16_000, 0]
        line.close()
