"""Live recognition from Python across lost connections: `stream` for scripts, `LiveStream` for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import math
import queue
import threading
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from tandem.access import Access
from tandem.asr.v1 import asr_pb2 as pb
from tandem.asr.v1 import asr_pb2_grpc
from tandem.errors import Unavailable
from tandem.live_events import Cursors, Ended, Final, LiveEvent
from tandem.results import RecognizeOptions
from tandem.rpc.calls import streaming_call
from tandem.rpc.channels import channel_options
from tandem.rpc.durations import duration, seconds
from tandem.streaming_convert import Encoding, event_of, streaming_config
from tandem.streaming_log import SentLog

_FIRST_DELAY, _MAX_DELAY = 0.1, 2.0
_STABLE_SECONDS = 2.0
"""A session that goes on for so long has been taken up; one that breaks at once each time has not."""


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """How to recognise live audio, and what its samples are. `client_endpoint`: only finalize() ends speech.

    `at_checkpoints`: partial text comes at checkpoint() only. `rollback_chars`: the last characters of a
    partial that are never fixed; None leaves it to the server (8).
    A broken connection is taken up again for `reconnect` seconds; 0 gives up at once.
    """

    recognize: RecognizeOptions = field(default_factory=RecognizeOptions)
    encoding: Encoding = Encoding.LINEAR16
    sample_rate: int = 16_000
    interim: bool = True
    client_endpoint: bool = False
    at_checkpoints: bool = False
    rollback_chars: int | None = None
    reconnect: float = 25.0


class LiveStream:
    """One live session.

    >>> async with LiveStream("localhost:50051") as live:
    ...     await live.send(pcm)
    ...     live.end()
    ...     async for event in live:
    ...         print(event)

    Iterate while sending, in another task or between sends: events come as they happen. Iteration ends
    after tandem.live_events.Ended and raises a subclass of TandemError when the session fails; either ends
    the session, and iterating again tells the same.
    """

    def __init__(
        self,
        target: str = "localhost:50051",
        options: StreamOptions | None = None,
        *,
        access: Access | None = None,
    ) -> None:
        self.options = options or StreamOptions()
        self.session_id = ""
        self.reconnects = 0
        self.cursors = Cursors(0.0, 0.0, 0.0)
        """How far the server was at the event given last."""
        self._channel = (access or Access()).aio_channel(target, channel_options())
        self._stub: asr_pb2_grpc.AsrServiceAsyncStub = asr_pb2_grpc.AsrServiceStub(self._channel)
        encoding = self.options.encoding
        width = 2 if encoding is Encoding.LINEAR16 else 1
        self._log = SentLog(encoding.bytes_per_second(self.options.sample_rate), width)
        self._token = ""
        self._final = 0.0
        self._next_final = 0
        self._ended = False
        self._failure: Exception | None = None
        self._give_up: float | None = None
        self._taken_up = math.inf
        """When the session was taken up last, by the event loop's clock."""

    async def send(self, audio: bytes) -> None:
        """Bytes of audio in the format of the options. Waits while the server is far behind.

        Once the session is over it returns at once and the audio is dropped: iterating tells how it ended.
        """
        await self._log.room()
        self._log.add(pb.StreamingRecognizeRequest(audio=audio))

    async def send_silence(self, length: float) -> None:
        """That many seconds of silence without bytes; waits, or is dropped, as audio is."""
        await self._log.room()
        self._log.add(pb.StreamingRecognizeRequest(silence=duration(length)))

    def finalize(self) -> None:
        """End the utterance now."""
        self._log.add(pb.StreamingRecognizeRequest(finalize=pb.FinalizeUtterance()))

    def checkpoint(self, number: int) -> None:
        """Ask for the text of what has been sent so far; CheckpointReached(number) follows it."""
        self._log.add(pb.StreamingRecognizeRequest(checkpoint=pb.Checkpoint(id=number)))

    def update(self, *, language: str | None = None, hotwords: Iterable[str] | None = None) -> None:
        """New language ("" lets the model decide) or hotwords; None leaves them as they are."""
        change = pb.UpdateConfig(
            hotwords=hotwords or (), replace_hotwords=hotwords is not None, language=language
        )
        self._log.add(pb.StreamingRecognizeRequest(update=change))

    def end(self) -> None:
        """No more audio: what is left is decoded, then the iteration ends."""
        self._log.end()

    async def __aiter__(self) -> AsyncIterator[LiveEvent]:
        if self._failure is not None:
            raise self._failure
        try:
            async with contextlib.aclosing(self._events()) as events:
                async for event in events:
                    yield event
        except Exception as error:
            self._failure = error
            self._log.abandon()
            raise

    async def _events(self) -> AsyncGenerator[LiveEvent, None]:
        """Those of one call after the other. Raises a call's error that is not to be taken up again."""
        delay, loop = _FIRST_DELAY, asyncio.get_running_loop()
        while not self._ended:
            try:
                async with contextlib.aclosing(self._call()) as events:
                    async for event in events:
                        yield event
                if not self._ended:
                    raise Unavailable("the server closed the stream")
            except Unavailable:
                if loop.time() - self._taken_up > _STABLE_SECONDS:
                    self._give_up = None
                self._taken_up = math.inf
                if self._give_up is None:
                    # From when it broke: a session may have been silent for long before.
                    self._give_up, delay = loop.time() + self.options.reconnect, _FIRST_DELAY
                if not self._token or not self._log.replayable or loop.time() + delay > self._give_up:
                    raise
                await asyncio.sleep(delay)
                delay = min(2 * delay, _MAX_DELAY)
                self.reconnects += 1

    async def _call(self) -> AsyncGenerator[LiveEvent, None]:
        config = streaming_config(self.options)
        if self._token:
            config.resume_token = self._token
            config.resume_from.CopyFrom(duration(self._final))
        ready: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        try:
            async with streaming_call(self._stub.StreamingRecognize, self._requests(config, ready)) as call:
                async for response in call:
                    self._note(response, ready)
                    event = event_of(response)
                    if event is not None and self._is_new(event):
                        yield event
                    if self._ended:
                        # The call's status may be an error yet, where it met something being written.
                        return
        finally:
            ready.cancel()

    async def _requests(
        self, config: pb.StreamingConfig, ready: asyncio.Future[float]
    ) -> AsyncIterator[pb.StreamingRecognizeRequest]:
        yield pb.StreamingRecognizeRequest(config=config)
        async for message in self._log.from_position(await ready):
            yield message

    def _note(self, response: pb.StreamingRecognizeResponse, ready: asyncio.Future[float]) -> None:
        if response.HasField("started"):
            self._taken_up = asyncio.get_running_loop().time()
            self.session_id, self._token = response.started.session_id, response.started.resume_token
            ready.set_result(seconds(response.cursors.received))
        else:
            self._give_up = None
        at = response.cursors
        self.cursors = Cursors(seconds(at.received), seconds(at.decoded), seconds(at.final))
        self._log.received(self.cursors.received)

    def _is_new(self, event: LiveEvent) -> bool:
        if isinstance(event, Final):
            if event.index < self._next_final:
                return False
            self._next_final, self._final = event.index + 1, event.segment.end
        if isinstance(event, Ended):
            self._ended = True
            self._log.abandon()
        return True

    async def close(self) -> None:
        """Ends what is left of the session; whoever waits in send() returns."""
        self._log.abandon()
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


async def stream_async(
    chunks: AsyncIterable[bytes],
    target: str = "localhost:50051",
    options: StreamOptions | None = None,
    *,
    access: Access | None = None,
) -> AsyncIterator[LiveEvent]:
    """Events of live audio that comes in chunks; the session ends with them. Their errors are raised."""
    async with LiveStream(target, options, access=access) as live:

        async def feed() -> None:
            async for chunk in chunks:
                await live.send(chunk)
            live.end()

        feeding = asyncio.create_task(feed())
        following: asyncio.Future[LiveEvent | None] | None = None
        events = aiter(live)
        try:
            while True:
                following = following or asyncio.ensure_future(anext(events, None))
                waiting: set[asyncio.Future[Any]] = {following} if feeding.done() else {following, feeding}
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if feeding.done():
                    feeding.result()
                if following.done():
                    event, following = following.result(), None
                    if event is None:
                        return
                    yield event
        finally:
            tasks = [task for task in (feeding, following) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _pulled(chunks: Iterable[bytes]) -> AsyncGenerator[bytes, None]:
    """The chunks, each taken when it is asked for, in a daemon thread; what taking one raises is raised.

    Not in the event loop's own threads: asyncio.run() and the interpreter's end wait for those, and the next
    chunk may never come.
    """
    loop, iterator = asyncio.get_running_loop(), iter(chunks)
    asked: queue.SimpleQueue[asyncio.Future[bytes | None] | None] = queue.SimpleQueue()

    def answer(wanted: asyncio.Future[bytes | None], chunk: bytes | BaseException | None) -> None:
        if wanted.done():
            return
        if isinstance(chunk, BaseException):
            wanted.set_exception(chunk)
        else:
            wanted.set_result(chunk)

    def take() -> None:
        while (wanted := asked.get()) is not None:
            chunk: bytes | BaseException | None
            try:
                chunk = next(iterator, None)
            except BaseException as error:
                chunk = error
            try:
                loop.call_soon_threadsafe(answer, wanted, chunk)
            except RuntimeError:
                return  # The loop is closed: nobody waits for it.

    threading.Thread(target=take, name="tandem-chunks", daemon=True).start()
    try:
        while True:
            wanted: asyncio.Future[bytes | None] = loop.create_future()
            asked.put(wanted)
            chunk = await wanted
            if chunk is None:
                return
            yield chunk
    finally:
        asked.put(None)


def stream(
    chunks: Iterable[bytes],
    target: str = "localhost:50051",
    options: StreamOptions | None = None,
    *,
    access: Access | None = None,
) -> Iterator[LiveEvent]:
    """The blocking form of stream_async. A daemon thread takes chunks: the end comes even if none does.

    >>> for event in tandem.stream(microphone(), "localhost:50051"):
    ...     if isinstance(event, Final):
    ...         print(event.segment.text)
    """
    events: queue.SimpleQueue[LiveEvent | BaseException | None] = queue.SimpleQueue()
    stopped = threading.Event()

    async def pull() -> AsyncIterator[bytes]:
        async with contextlib.aclosing(_pulled(chunks)) as pulled:
            async for chunk in pulled:
                if stopped.is_set():
                    return
                yield chunk

    async def run() -> None:
        # Told from in here: asyncio.run() may have to wait for what is left before it returns.
        try:
            async for event in stream_async(pull(), target, options, access=access):
                events.put(event)
                if stopped.is_set():
                    return
            events.put(None)
        except Exception as error:
            events.put(error)

    def work() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            events.put(error)

    thread = threading.Thread(target=work, name="tandem-stream", daemon=True)
    thread.start()
    try:
        while (item := events.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()


__all__ = ["Encoding", "LiveStream", "StreamOptions", "stream", "stream_async"]
