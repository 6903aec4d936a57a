"""Live recognition over gRPC with real tiers: every audio format, commands, limits, lost connections."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import av
import grpc
import grpc.aio
import numpy as np
import pytest
import soundfile
from av.audio.frame import AudioFrame

from tandem import Client, LiveStream, RecognizeOptions, StreamOptions, stream
from tandem.asr.v1 import asr_pb2 as pb
from tandem.asr.v1 import asr_pb2_grpc
from tandem.errors import InvalidRequest
from tandem.launcher import Stack
from tandem.live_events import Cursors, Ended, EndReason, Final, LiveEvent, Partial, SpeechBegan, SpeechEnded
from tandem.streaming_client import Encoding
from tests.support.live import FRAME, live_stack, paced, pcm

SHORT = RecognizeOptions(max_new_tokens=6)


@pytest.fixture(scope="module")
def services() -> Iterator[Stack]:
    with live_stack(gateway_args=["--session-idle", "6", "--resume-grace", "5"]) as running:
        yield running


async def everything(live: LiveStream) -> list[LiveEvent]:
    return [event async for event in live]


def finals(events: list[LiveEvent]) -> list[Final]:
    return [event for event in events if isinstance(event, Final)]


async def test_partials_then_one_final_in_the_order_of_a_state_machine(services: Stack) -> None:
    cursors: list[Cursors] = []
    async with LiveStream(services.address, StreamOptions(SHORT)) as live:

        async def read() -> list[LiveEvent]:
            events = []
            async for event in live:
                events.append(event)
                cursors.append(live.cursors)
            return events

        reading = asyncio.create_task(read())
        async for frame in paced(pcm("mandarin_6s.wav", silence=2.5), speed=2):
            await live.send(frame)
        live.end()
        events = await reading
    kinds = [type(event) for event in events]
    assert kinds[0] is SpeechBegan
    assert kinds[-1] is Ended
    assert kinds.count(SpeechBegan) == kinds.count(SpeechEnded) == kinds.count(Final) >= 1
    final = finals(events)[0]
    began = next(event for event in events if isinstance(event, SpeechBegan))
    ended_at = next(event.at for event in events if isinstance(event, SpeechEnded))
    assert (began.at, ended_at) == (final.segment.start, final.segment.end)
    partials = [event for event in events if isinstance(event, Partial) and event.index == final.index]
    assert partials[0].end - partials[0].start < 1.0
    assert all(partial.start == final.segment.start for partial in partials)
    assert all(final.segment.text.startswith(partial.fixed) for partial in partials)
    assert min(partial.stability for partial in partials) >= 0.0
    assert 0.0 < max(partial.stability for partial in partials) <= 1.0
    assert all(at.final <= at.decoded <= at.received for at in cursors)
    for before, after in pairwise(cursors):
        assert before.received <= after.received and before.decoded <= after.decoded
    assert cursors[-1].final == finals(events)[-1].segment.end
    ended = events[-1]
    assert isinstance(ended, Ended)
    assert ended.reason is EndReason.CLIENT
    assert ended.duration == pytest.approx(8.5, abs=0.1)


def test_capabilities_say_that_live_audio_is_served(services: Stack) -> None:
    with Client(services.address) as client:
        assert client.capabilities().streaming


def test_the_blocking_client_gives_the_same_finals_as_bytes_come_in_any_size(services: Stack) -> None:
    audio = pcm("mandarin_6s.wav", silence=2.5).tobytes()
    spans = []
    for size in (3201, 100_000):
        chunks = [audio[first : first + size] for first in range(0, len(audio), size)]
        events = list(stream(chunks, services.address, StreamOptions(SHORT)))
        spans.append([(final.segment.start, final.segment.end) for final in finals(events)])
    assert spans[0] == spans[1]
    assert spans[0]


def _opus(samples: np.ndarray[Any, np.dtype[np.int16]]) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="webm") as container:
        track = container.add_stream("libopus", rate=48_000)
        track.layout = "mono"
        for first in range(0, len(samples), 320):
            frame = AudioFrame.from_ndarray(samples[None, first : first + 320], format="s16", layout="mono")
            frame.sample_rate = 16_000
            frame.pts = None
            for packet in track.encode(frame):
                container.mux(packet)
        for packet in track.encode(None):
            container.mux(packet)
    return file.getvalue()


def _telephone(law: str) -> Callable[[np.ndarray[Any, np.dtype[np.int16]]], bytes]:
    def encode(samples: np.ndarray[Any, np.dtype[np.int16]]) -> bytes:
        file = io.BytesIO()
        soundfile.write(file, samples[::2], 8_000, subtype=law, format="RAW")
        return file.getvalue()

    return encode


def test_compressed_audio_has_the_same_speech_as_pcm(services: Stack) -> None:
    samples = pcm("mandarin_6s.wav", silence=2.5)
    spans = {}
    for encoding, rate, encode in (
        (Encoding.LINEAR16, 16_000, np.ndarray.tobytes),
        (Encoding.OPUS, 48_000, _opus),
        (Encoding.MULAW, 8_000, _telephone("ULAW")),
        (Encoding.ALAW, 8_000, _telephone("ALAW")),
    ):
        data = encode(samples)
        options = StreamOptions(SHORT, encoding=encoding, sample_rate=rate, interim=False)
        chunks = [data[first : first + 4000] for first in range(0, len(data), 4000)]
        events = list(stream(chunks, services.address, options))
        assert not any(isinstance(event, Partial) for event in events)
        times = [(final.segment.start, final.segment.end) for final in finals(events)]
        spans[encoding] = [time for span in times for time in span]
    for encoding, ends in spans.items():
        assert ends == pytest.approx(spans[Encoding.LINEAR16], abs=0.15), encoding


async def test_finalize_gives_the_final_before_any_pause(services: Stack) -> None:
    async with LiveStream(services.address, StreamOptions(SHORT)) as live:
        await live.send(pcm("mandarin_6s.wav").tobytes()[: 2 * 16_000 * 3])
        live.finalize()
        async for event in live:
            if isinstance(event, Final):
                assert event.segment.end == pytest.approx(3.0, abs=0.001)
                return
    pytest.fail("no final")


async def test_silence_as_a_message_ends_speech(services: Stack) -> None:
    async with LiveStream(services.address, StreamOptions(SHORT)) as live:
        await live.send(pcm("mandarin_6s.wav").tobytes())
        await live.send_silence(2.5)
        async for event in live:
            if isinstance(event, Final):
                return
    pytest.fail("no final")


async def test_hotwords_and_language_change_the_prompt_mid_stream(services: Stack) -> None:
    options = StreamOptions(RecognizeOptions(max_new_tokens=4, details=True))
    speech = pcm("mandarin_6s.wav").tobytes()
    async with LiveStream(services.address, options) as live:
        await live.send(speech)
        live.finalize()
        live.update(hotwords=["Tandem"], language="en")
        await live.send(speech)
        live.end()
        before, after = finals(await everything(live))
    assert len(after.segment.prompt_token_ids) > len(before.segment.prompt_token_ids) + 10


async def test_an_idle_session_is_told_why_it_ends(services: Stack) -> None:
    async with LiveStream(services.address, StreamOptions(SHORT)) as live:
        await live.send(bytes(2 * FRAME))
        events = await asyncio.wait_for(everything(live), 15)
    assert isinstance(events[-1], Ended)
    assert events[-1].reason is EndReason.IDLE


class Dropped:
    """A client that loses its connection in the middle of speech, and takes the session up again."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.aio.insecure_channel(address)
        self.stub: Any = asr_pb2_grpc.AsrServiceStub(self.channel)

    async def first_half(
        self, sentence: bytes, more: bytes = b""
    ) -> tuple[str, list[pb.StreamingRecognizeResponse]]:
        """Leaves when the final of the sentence has come and the server has heard `more`."""
        call = self.stub.StreamingRecognize()
        config = pb.StreamingConfig(recognition=pb.RecognitionConfig(max_new_tokens=6))
        await call.write(pb.StreamingRecognizeRequest(config=config))
        got = [await call.read()]
        token = got[0].started.resume_token
        for audio in (sentence, more):
            for first in range(0, len(audio), 3200):
                await call.write(pb.StreamingRecognizeRequest(audio=audio[first : first + 3200]))
            while not any(message.result.is_final for message in got):
                got.append(await call.read())
        while received(got[-1]) < len(sentence + more):
            got.append(await call.read())
        call.cancel()
        await self.channel.close()
        return token, got


def received(message: pb.StreamingRecognizeResponse) -> int:
    """Bytes of audio that the server has heard."""
    at = message.cursors.received
    return round((at.seconds + at.nanos / 1e9) * 32_000)


async def test_a_lost_connection_loses_no_speech_and_doubles_none(services: Stack) -> None:
    speech = pcm("mandarin_6s.wav", silence=2.5).tobytes()
    client = Dropped(services.address)
    token, got = await client.first_half(speech, speech[: len(speech) // 4])
    final = next(message for message in got if message.result.is_final)
    await asyncio.sleep(0.5)

    again = Dropped(services.address)
    call = again.stub.StreamingRecognize()
    # As if the first final had never arrived.
    await call.write(pb.StreamingRecognizeRequest(config=pb.StreamingConfig(resume_token=token)))
    heard = received(await call.read())
    assert heard == len(speech) + len(speech) // 4
    await call.write(pb.StreamingRecognizeRequest(audio=(speech + speech)[heard:]))
    await call.done_writing()
    results = []
    while (message := await call.read()) is not grpc.aio.EOF:
        if message.result.is_final:
            results.append(message.result)
    assert [result.index for result in results] == [0, 1]
    assert results[0] == final.result
    whole = list(stream([speech + speech], services.address, StreamOptions(SHORT)))
    assert [
        (result.segment.start.ToTimedelta().total_seconds(), result.segment.end.ToTimedelta().total_seconds())
        for result in results
    ] == [(final.segment.start, final.segment.end) for final in finals(whole)]
    await again.channel.close()


async def test_a_session_is_forgotten_after_the_grace_period(services: Stack) -> None:
    client = Dropped(services.address)
    token, _ = await client.first_half(pcm("mandarin_6s.wav", silence=2.5).tobytes())
    await asyncio.sleep(6)
    again = Dropped(services.address)
    call = again.stub.StreamingRecognize()
    await call.write(pb.StreamingRecognizeRequest(config=pb.StreamingConfig(resume_token=token)))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call.read()
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    await again.channel.close()


async def test_a_stream_that_begins_with_audio_is_refused(services: Stack) -> None:
    async with grpc.aio.insecure_channel(services.address) as channel:
        stub: Any = asr_pb2_grpc.AsrServiceStub(channel)
        call = stub.StreamingRecognize()
        await call.write(pb.StreamingRecognizeRequest(audio=b"\0\0"))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call.read()
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "config: must be the first message" in (refused.value.details() or "")


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (StreamOptions(sample_rate=5), "config.sample_rate_hertz"),
        (StreamOptions(RecognizeOptions(max_segment=0.1)), "config.endpoint.max_segment"),
    ],
)
def test_bad_configuration_names_its_field(services: Stack, options: StreamOptions, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        list(stream([b""], services.address, options))
    assert [violation.field for violation in refused.value.violations] == [field]


def test_garbage_instead_of_opus_is_refused(services: Stack) -> None:
    with pytest.raises(InvalidRequest):
        list(stream([b"no opus" * 2000], services.address, StreamOptions(encoding=Encoding.OPUS)))


async def test_a_message_that_holds_too_much_audio_is_refused(services: Stack) -> None:
    async with grpc.aio.insecure_channel(services.address) as channel:
        stub: Any = asr_pb2_grpc.AsrServiceStub(channel)
        call = stub.StreamingRecognize()
        await call.write(pb.StreamingRecognizeRequest(config=pb.StreamingConfig()))
        await call.write(pb.StreamingRecognizeRequest(audio=bytes(2**24 + 2)))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            while await call.read():
                pass
    assert refused.value.code() is grpc.StatusCode.OUT_OF_RANGE
    assert "at most 16 MiB" in (refused.value.details() or "")
