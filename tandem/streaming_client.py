"""Live recognition from Python across lost connections: `stream` for scripts, `LiveStream` for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
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
    after tandem.live_events.Ended and raises a subclass of TandemError when the session fails.
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
        self._log = SentLog(self.options.encoding.bytes_per_second(self.options.sample_rate))
        self._token = ""
        self._final = 0.0
        self._next_final = 0
        self._ended = False

    async def send(self, audio: bytes) -> None:
        """Bytes of audio in the format of the options. Waits while the server is far behind."""
        await self._log.room()
        self._log.add(pb.StreamingRecognizeRequest(audio=audio))

    async def send_silence(self, length: float) -> None:
        """That many seconds of silence without bytes."""
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
        delay, loop = _FIRST_DELAY, asyncio.get_running_loop()
        give_up = loop.time() + self.options.reconnect
        while not self._ended:
            try:
                async with contextlib.aclosing(self._call()) as events:
                    async for event in events:
                        give_up, delay = loop.time() + self.options.reconnect, _FIRST_DELAY
                        yield event
                if not self._ended:
                    raise Unavailable("the server closed the stream")
            except Unavailable:
                if not self._token or not self._log.replayable or loop.time() + delay > give_up:
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
            self.session_id, self._token = response.started.session_id, response.started.resume_token
            ready.set_result(seconds(response.cursors.received))
        at = response.cursors
        self.cursors = Cursors(seconds(at.received), seconds(at.decoded), seconds(at.final))
        self._log.received(self.cursors.received)

    def _is_new(self, event: LiveEvent) -> bool:
        if isinstance(event, Final):
            if event.index < self._next_final:
                return False
            self._next_final, self._final = event.index + 1, event.segment.end
        self._ended = isinstance(event, Ended)
        return True

    async def close(self) -> None:
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


def stream(
    chunks: Iterable[bytes],
    target: str = "localhost:50051",
    options: StreamOptions | None = None,
    *,
    access: Access | None = None,
) -> Iterator[LiveEvent]:
    """The blocking form of stream_async.

    >>> for event in tandem.stream(microphone(), "localhost:50051"):
    ...     if isinstance(event, Final):
    ...         print(event.segment.text)
    """
    events: queue.SimpleQueue[LiveEvent | BaseException | None] = queue.SimpleQueue()
    stopped = threading.Event()

    async def pull() -> AsyncIterator[bytes]:
        iterator = iter(chunks)
        while not stopped.is_set():
            chunk = await asyncio.to_thread(next, iterator, None)
            if chunk is None:
                return
            yield chunk

    async def run() -> None:
        async for event in stream_async(pull(), target, options, access=access):
            events.put(event)
            if stopped.is_set():
                return

    def work() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            events.put(error)
        else:
            events.put(None)

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
