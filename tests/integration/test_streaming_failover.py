"""Lost parts of a live session: an encoder that dies, a connection that breaks, a gateway that goes down."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tandem import LiveStream, RecognizeOptions, StreamOptions, stream
from tandem.launcher import Tier, spawn, wait_ready
from tandem.live_events import Ended, EndReason, Final, LiveEvent, Partial, SpeechBegan
from tests.support.live import DECODER, live_stack, paced, pcm
from tests.support.ports import free_port
from tests.support.services import NANO

SHORT = StreamOptions(RecognizeOptions(max_new_tokens=6))


@dataclass(slots=True)
class TwoEncoders:
    """A decoder, two encoders behind one target, a gateway without language-model partials."""

    gateway: str
    tiers: dict[str, Tier]

    def kill(self, name: str) -> None:
        os.kill(self.tiers[name].process.pid, signal.SIGKILL)
        self.tiers[name].process.wait()

    @contextlib.contextmanager
    def stopped(self, name: str) -> Iterator[None]:
        """The process stands still inside: its connections stay open, nothing is answered."""
        os.kill(self.tiers[name].process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.tiers[name].process.pid, signal.SIGCONT)

    async def ready(self, name: str) -> None:
        """Ready, and known to be."""
        await asyncio.to_thread(wait_ready, [self.tiers[name]], 30)
        await asyncio.sleep(2)


@pytest.fixture(scope="module")
def services() -> Iterator[TwoEncoders]:
    with tempfile.TemporaryDirectory(prefix="tandem-live-") as directory:
        root = Path(directory)
        decoder, gateway = f"unix:{root}/decoder.sock", f"unix:{root}/gateway.sock"
        ports = [free_port(), free_port()]
        model = ["--model", str(NANO)]
        encoder = [*model, "--decoder", decoder, "--listen"]
        both = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports)
        front = ["--encoder", both, "--http-port", "0", "--realtime-port", "0", "--llm-partials", "0"]
        plan = {
            "decoder": ("decoder_service", [*model, *DECODER, "--engine", "transformers"], decoder),
            "encoder0": ("encoder_service", encoder, f"127.0.0.1:{ports[0]}"),
            "encoder1": ("encoder_service", encoder, f"127.0.0.1:{ports[1]}"),
            "gateway": ("gateway", front, gateway),
        }
        tiers: dict[str, Tier] = {}
        try:
            for name, (module, flags, address) in plan.items():
                listen = [address] if flags and flags[-1] == "--listen" else ["--listen", address]
                tiers[name] = spawn(name, module, [*flags, *listen], address, root)
            wait_ready(list(tiers.values()), timeout=120)
            yield TwoEncoders(gateway, tiers)
        finally:
            for tier in reversed(tiers.values()):
                tier.end(grace=10)


def finals(events: list[LiveEvent]) -> list[tuple[int, str, float, float]]:
    return [
        (event.index, event.segment.text, event.segment.start, event.segment.end)
        for event in events
        if isinstance(event, Final)
    ]


async def undisturbed(services: TwoEncoders, audio: bytes) -> list[tuple[int, str, float, float]]:
    """The finals when nothing breaks."""
    return finals(await asyncio.to_thread(lambda: list(stream([audio], services.gateway, SHORT))))


async def follow(target: str, speech: npt.NDArray[np.int16], in_the_middle: asyncio.Event) -> list[LiveEvent]:
    """What a client is told that speaks in real time; the event is set when it has spoken for two seconds."""
    events: list[LiveEvent] = []
    async with LiveStream(target, SHORT) as live:

        async def speak() -> None:
            async for frame in paced(speech):
                await live.send(frame)
            live.end()

        speaking = asyncio.create_task(speak())
        async for event in live:
            events.append(event)
            if isinstance(event, Partial) and event.end - event.start > 2:
                in_the_middle.set()
        await speaking
        assert live.reconnects == 0
    return events


def shown(events: list[LiveEvent], start: float, end: float) -> int:
    """Partials of speech that had been heard up to a second between these."""
    return sum(isinstance(event, Partial) and start < event.end < end for event in events)


async def test_live_speech_leaves_an_encoder_that_stands_still(services: TwoEncoders) -> None:
    speech = pcm("english_9s.wav", silence=2.5)
    expected = await undisturbed(services, speech.tobytes())
    # Two sessions, so that each encoder has one.
    middles = [asyncio.Event() for _ in range(2)]
    clients = [asyncio.create_task(follow(services.gateway, speech, middle)) for middle in middles]
    for middle in middles:
        await middle.wait()
    with services.stopped("encoder1"):
        told = await asyncio.gather(*clients)
    assert [finals(events) for events in told] == [expected] * 2
    assert all(shown(events, 4.5, 7.0) for events in told)
    await services.ready("encoder1")


async def test_another_encoder_takes_over_and_no_word_is_lost_or_doubled(services: TwoEncoders) -> None:
    speech = pcm("mandarin_6s.wav", silence=2.5)
    expected = await undisturbed(services, speech.tobytes())
    middle = asyncio.Event()
    client = asyncio.create_task(follow(services.gateway, speech, middle))
    await middle.wait()
    services.kill("encoder0")
    events = await client
    assert finals(events) == expected
    assert shown(events, 4.5, 9.0) >= 2


async def test_a_gateway_that_goes_down_gives_the_last_final_and_says_so() -> None:
    events: list[LiveEvent] = []
    with live_stack() as services:
        gateway = services.tiers[-1]
        async with LiveStream(services.address, SHORT) as live:
            await live.send(pcm("mandarin_6s.wav").tobytes())
            async for event in live:
                if isinstance(event, SpeechBegan) and not events:
                    gateway.process.terminate()
                events.append(event)
        gateway.process.wait(10)
    assert len(finals(events)) >= 1
    last = events[-1]
    assert isinstance(last, Ended)
    assert last.reason is EndReason.DRAIN


class Proxy:
    """A byte relay whose connections can be cut, as a network does."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._writers: list[asyncio.StreamWriter] = []
        self.port = free_port()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", self.port)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(self._path)
        self._writers += [writer, back]
        await asyncio.gather(self._copy(reader, back), self._copy(there, writer))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data)
        except ConnectionError:
            return
        finally:
            writer.close()

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()


async def test_the_client_takes_a_broken_connection_up_again(services: TwoEncoders) -> None:
    speech = pcm("mandarin_6s.wav", silence=2.5)
    expected = await undisturbed(services, speech.tobytes())
    proxy = Proxy(services.gateway.removeprefix("unix:"))
    await proxy.start()
    events: list[LiveEvent] = []
    async with LiveStream(f"127.0.0.1:{proxy.port}", SHORT) as live:

        async def speak() -> None:
            frames = 0
            async for frame in paced(speech):
                await live.send(frame)
                frames += 1
                if frames in (12, 40, 82):
                    proxy.cut()
            live.end()

        speaking = asyncio.create_task(speak())
        async for event in live:
            events.append(event)
        await speaking
    assert live.reconnects >= 3
    assert finals(events) == expected
