"""The live client against a server that falls silent, breaks off or ends the session by itself."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeAlias

import grpc
import grpc.aio
import pytest

from tandem import LiveStream, StreamOptions, stream
from tandem.asr.v1 import asr_pb2 as pb
from tandem.asr.v1 import asr_pb2_grpc
from tandem.errors import InvalidRequest, TandemError, Unavailable
from tandem.live_events import Ended, EndReason, LiveEvent, SpeechBegan

Response = pb.StreamingRecognizeResponse
Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
Script = Callable[[Context], AsyncIterator[Response]]

STARTED = Response(started=pb.SessionStarted(session_id="a", resume_token="t"))
PROGRESS = Response(progress=pb.Progress())
BEGIN = Response(speech=pb.SpeechEvent(type=pb.SpeechEvent.TYPE_BEGIN))
DRAINED = Response(ended=pb.SessionEnded(reason=pb.SessionEnded.REASON_DRAIN))


async def gone(context: Context) -> None:
    await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")


async def ends(context: Context) -> AsyncIterator[Response]:
    """A call that ends the session at once."""
    yield STARTED
    yield DRAINED


class Scripted(asr_pb2_grpc.AsrServiceServicer):
    """Its first call runs the first script, and so on; the last one stays. Reads what is sent meanwhile."""

    def __init__(self, *scripts: Script) -> None:
        self.scripts = scripts
        self.calls = 0

    async def StreamingRecognize(
        self, requests: AsyncIterator[pb.StreamingRecognizeRequest], context: Context
    ) -> AsyncIterator[Response]:
        script = self.scripts[min(self.calls, len(self.scripts) - 1)]
        self.calls += 1
        reading = asyncio.create_task(self._read(requests))
        try:
            async for response in script(context):
                yield response
        finally:
            reading.cancel()

    async def Recognize(self, request: pb.RecognizeRequest, context: Context) -> pb.RecognizeResponse:
        raise NotImplementedError

    async def GetCapabilities(
        self, request: pb.GetCapabilitiesRequest, context: Context
    ) -> pb.GetCapabilitiesResponse:
        raise NotImplementedError

    async def _read(self, requests: AsyncIterator[pb.StreamingRecognizeRequest]) -> None:
        async for _ in requests:
            continue


@contextlib.asynccontextmanager
async def serving(servicer: Scripted) -> AsyncIterator[str]:
    server = grpc.aio.server()
    asr_pb2_grpc.add_AsrServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


@contextlib.contextmanager
def served(servicer: Scripted) -> Iterator[str]:
    """The same in a thread, for clients that block."""
    addresses: list[str] = []
    started, over = threading.Event(), threading.Event()

    async def run() -> None:
        async with serving(servicer) as address:
            addresses.append(address)
            started.set()
            while not over.is_set():
                await asyncio.sleep(0.02)

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    assert started.wait(10)
    try:
        yield addresses[0]
    finally:
        over.set()
        thread.join(10)


@contextlib.asynccontextmanager
async def sending(live: LiveStream) -> AsyncIterator[None]:
    """Sends audio all the time, so that some is always being written."""

    async def feed() -> None:
        while True:
            await live.send(bytes(640))
            await asyncio.sleep(0.0005)

    feeding = asyncio.create_task(feed())
    try:
        yield
    finally:
        feeding.cancel()
        await asyncio.wait([feeding])


async def test_a_session_that_breaks_at_once_each_time_is_given_up() -> None:
    async def breaks(context: Context) -> AsyncIterator[Response]:
        yield STARTED
        await gone(context)

    server = Scripted(breaks)
    async with serving(server) as address, LiveStream(address, StreamOptions(reconnect=0.6)) as live:
        with pytest.raises(Unavailable, match="gone"):
            async with asyncio.timeout(20):
                [event async for event in live]
    assert server.calls > 1


async def test_a_session_that_was_silent_for_long_is_taken_up_again() -> None:
    async def silent(context: Context) -> AsyncIterator[Response]:
        yield STARTED
        for _ in range(8):
            await asyncio.sleep(0.1)
            yield PROGRESS
        await gone(context)

    servicer = Scripted(silent, ends)
    async with serving(servicer) as address, LiveStream(address, StreamOptions(reconnect=0.4)) as live:
        events = [event async for event in live]
    assert [type(event) for event in events] == [Ended]
    assert live.reconnects == 1


async def test_each_break_has_the_whole_time_to_come_back() -> None:
    async def breaks(context: Context) -> AsyncIterator[Response]:
        yield STARTED
        yield PROGRESS
        await asyncio.sleep(0.2)
        await gone(context)

    servicer = Scripted(breaks, breaks, breaks, breaks, ends)
    async with serving(servicer) as address, LiveStream(address, StreamOptions(reconnect=0.5)) as live:
        assert [type(event) async for event in live] == [Ended]
    assert live.reconnects == 4


@pytest.mark.parametrize(("reconnect", "reconnects"), [(0.0, {0}), (0.5, {1, 2})])
async def test_a_session_that_does_not_come_back_is_given_up_and_stays_so(
    reconnect: float, reconnects: set[int]
) -> None:
    async def breaks(context: Context) -> AsyncIterator[Response]:
        yield STARTED
        yield BEGIN
        await gone(context)

    async def refuses(context: Context) -> AsyncIterator[Response]:
        await gone(context)
        yield STARTED

    servicer = Scripted(breaks, refuses)
    async with serving(servicer) as address, LiveStream(address, StreamOptions(reconnect=reconnect)) as live:
        events = list[LiveEvent]()
        with pytest.raises(Unavailable):
            async for event in live:
                events.append(event)
        assert [type(event) for event in events] == [SpeechBegan]
        assert live.reconnects in reconnects
        with pytest.raises(Unavailable):
            await anext(aiter(live))


async def test_a_call_that_breaks_while_the_client_writes_is_taken_up_again() -> None:
    async def breaks(context: Context) -> AsyncIterator[Response]:
        yield STARTED
        await asyncio.sleep(0.05)
        await gone(context)

    told = Counter[str]()
    for _ in range(12):
        servicer = Scripted(breaks, ends)
        async with serving(servicer) as address, LiveStream(address) as live, sending(live):
            try:
                told[f"{[type(event).__name__ async for event in live]} {live.reconnects}"] += 1
            except TandemError as error:
                told[repr(error)] += 1
    assert told == {"['Ended'] 1": 12}


async def test_an_error_after_the_end_is_none() -> None:
    async def ends_badly(context: Context) -> AsyncIterator[Response]:
        yield STARTED
        yield DRAINED
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "bad")

    servicer = Scripted(ends_badly)
    async with serving(servicer) as address, LiveStream(address) as live:
        events = [event async for event in live]
    assert [event.reason for event in events if isinstance(event, Ended)] == [EndReason.DRAIN]
    assert servicer.calls == 1


@pytest.mark.parametrize("is_refused", [False, True])
async def test_send_does_not_wait_in_a_session_that_is_over(is_refused: bool) -> None:
    async def late(context: Context) -> AsyncIterator[Response]:
        yield STARTED
        await asyncio.sleep(0.3)
        if is_refused:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no")
        yield DRAINED

    async with serving(Scripted(late)) as address, LiveStream(address) as live:

        async def speak() -> None:
            for _ in range(70):
                await live.send(bytes(32_000))
                await live.send_silence(1.0)

        speaking = asyncio.create_task(speak())
        with pytest.raises(InvalidRequest) if is_refused else contextlib.nullcontext():
            async for _ in live:
                continue
        await asyncio.wait_for(speaking, 2)


async def test_send_does_not_wait_in_a_stream_that_is_closed() -> None:
    live = LiveStream("127.0.0.1:9")
    await live.send(bytes(61 * 32_000))
    speaking = asyncio.create_task(live.send(bytes(3200)))
    await asyncio.sleep(0.01)
    assert not speaking.done()
    await live.close()
    await asyncio.wait_for(speaking, 2)


@pytest.mark.parametrize("is_refused", [False, True])
def test_a_script_hears_of_the_end_while_no_chunk_comes(is_refused: bool) -> None:
    async def late(context: Context) -> AsyncIterator[Response]:
        yield STARTED
        await asyncio.sleep(0.2)
        if is_refused:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no")
        yield DRAINED

    quiet = threading.Event()

    def microphone() -> Iterator[bytes]:
        yield bytes(3200)
        quiet.wait(10)

    with served(Scripted(late)) as address:
        started, events = time.monotonic(), list[LiveEvent]()
        with pytest.raises(InvalidRequest) if is_refused else contextlib.nullcontext():
            events.extend(stream(microphone(), address))
        took = time.monotonic() - started
        quiet.set()
    assert took < 5
    assert [type(event) for event in events] == ([] if is_refused else [Ended])


def test_what_taking_a_chunk_raises_is_raised() -> None:
    async def waits(context: Context) -> AsyncIterator[Response]:
        yield STARTED
        await asyncio.sleep(60)

    def broken() -> Iterator[bytes]:
        yield bytes(3200)
        raise OSError("unplugged")

    with served(Scripted(waits)) as address, pytest.raises(OSError, match="unplugged"):
        list(stream(broken(), address))
