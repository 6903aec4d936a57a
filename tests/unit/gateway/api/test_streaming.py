"""StreamingRecognize over sessions whose decodes take no time: none is left behind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from gateway.api.streaming import streaming_recognize
from gateway.api.streaming_messages import session_options
from gateway.session.config import PartialPolicy
from tandem.asr.v1 import asr_pb2 as pb
from tandem.errors import InvalidRequest, Unavailable
from tests.unit.gateway.session.instant import InstantService
from tests.unit.gateway.session.simulation import Script


class Open:
    """The context of a call that goes on."""

    def done(self) -> bool:
        return False


async def stream(*messages: pb.StreamingRecognizeRequest) -> AsyncIterator[pb.StreamingRecognizeRequest]:
    for message in messages:
        yield message


@pytest.mark.parametrize(
    "config",
    [
        pb.StreamingConfig(sample_rate_hertz=5),
        pb.StreamingConfig(encoding=99),  # type: ignore[arg-type]
        pb.StreamingConfig(resume_token="unknown"),
        pb.StreamingConfig(recognition=pb.RecognitionConfig(separate_channels=True)),
    ],
)
async def test_a_stream_that_is_refused_holds_no_session(config: pb.StreamingConfig) -> None:
    server = InstantService()
    responses = streaming_recognize(
        server.sessions, stream(pb.StreamingRecognizeRequest(config=config)), Open()
    )
    with pytest.raises(InvalidRequest):
        await anext(responses)
    assert len(server.sessions) == 0


def test_without_vad_the_client_ends_utterances() -> None:
    for vad in (True, False):
        config = pb.StreamingConfig(recognition=pb.RecognitionConfig(vad=vad))
        assert session_options(config, PartialPolicy()).client_endpoint == (not vad)


@pytest.mark.parametrize(
    ("after", "reason"),
    [(61.0, pb.SessionEnded.REASON_IDLE), (3601.0, pb.SessionEnded.REASON_MAX_DURATION)],
)
async def test_the_last_message_says_why_the_server_ends_a_session(
    after: float, reason: pb.SessionEnded.Reason.ValueType
) -> None:
    server = InstantService()

    async def requests() -> AsyncIterator[pb.StreamingRecognizeRequest]:
        yield pb.StreamingRecognizeRequest(config=pb.StreamingConfig())
        await asyncio.Event().wait()

    responses = streaming_recognize(server.sessions, requests(), Open())
    await anext(responses)
    server.clock.now = after
    server.sessions.tick()
    (ended,) = [response async for response in responses]
    assert ended.ended.reason == reason
    assert len(server.sessions) == 0


async def test_a_client_that_goes_at_once_is_waited_for_and_then_forgotten() -> None:
    server = InstantService()
    request = pb.StreamingRecognizeRequest(config=pb.StreamingConfig())
    responses = streaming_recognize(server.sessions, stream(request), Open())
    assert (await anext(responses)).started.resume_token
    await responses.aclose()
    server.sessions.tick()
    assert len(server.sessions) == 1
    server.clock.now += server.sessions.limits.grace
    server.sessions.tick()
    assert len(server.sessions) == 0


async def test_a_checkpoint_is_answered_although_the_connection_broke() -> None:
    server = InstantService()

    async def call(
        config: pb.StreamingConfig, *messages: pb.StreamingRecognizeRequest
    ) -> AsyncIterator[pb.StreamingRecognizeRequest]:
        for message in (pb.StreamingRecognizeRequest(config=config), *messages):
            yield message
        await asyncio.Event().wait()

    audio = pb.StreamingRecognizeRequest(audio=Script().pause(0.3).say(5).audio.tobytes())
    checkpoint = pb.StreamingRecognizeRequest(checkpoint=pb.Checkpoint(id=7))
    responses = streaming_recognize(server.sessions, call(pb.StreamingConfig(), audio, checkpoint), Open())
    token = (await anext(responses)).started.resume_token
    while not (answer := await anext(responses)).HasField("checkpoint"):
        continue
    # As if the answer had never arrived.
    await responses.aclose()
    again = streaming_recognize(server.sessions, call(pb.StreamingConfig(resume_token=token)), Open())
    async with contextlib.aclosing(again):
        told = [await asyncio.wait_for(anext(again), 1) for _ in range(3)]
    assert [message.WhichOneof("event") for message in told] == ["started", "result", "checkpoint"]
    assert told[-1] == answer


async def test_what_was_heard_while_an_answer_was_read_is_told_too() -> None:
    server, read, heard = InstantService(), asyncio.Event(), asyncio.Event()

    async def requests() -> AsyncIterator[pb.StreamingRecognizeRequest]:
        yield pb.StreamingRecognizeRequest(config=pb.StreamingConfig())
        yield pb.StreamingRecognizeRequest(checkpoint=pb.Checkpoint(id=1))
        await read.wait()
        yield pb.StreamingRecognizeRequest(audio=bytes(32_000))
        heard.set()
        await asyncio.Event().wait()

    responses = streaming_recognize(server.sessions, requests(), Open())
    async with contextlib.aclosing(responses):
        while not (await anext(responses)).HasField("checkpoint"):
            continue
        read.set()
        await heard.wait()
        told = await asyncio.wait_for(anext(responses), 5)
    assert told.cursors.received.ToTimedelta().total_seconds() == 1.0


async def test_a_client_that_reads_no_answers_is_not_read_either() -> None:
    server, sent = InstantService(), 0

    async def requests() -> AsyncIterator[pb.StreamingRecognizeRequest]:
        nonlocal sent
        yield pb.StreamingRecognizeRequest(config=pb.StreamingConfig())
        for sent in range(20_000):
            yield pb.StreamingRecognizeRequest(checkpoint=pb.Checkpoint(id=sent))
            await asyncio.sleep(0)

    responses = streaming_recognize(server.sessions, requests(), Open())
    async with contextlib.aclosing(responses):
        for _ in range(2):
            await anext(responses)
        for _ in range(25_000):
            await asyncio.sleep(0)
        held = sent
        assert held < 2_000
        answers = [(await anext(responses)).checkpoint.id for _ in range(3_000)]
    assert answers == list(range(1, 3_001))


async def test_a_session_that_fails_tells_its_own_error_and_leaves_the_requests_to_be_read() -> None:
    server = InstantService()
    server.backend.error = Unavailable("no encoder")
    speech = Script().pause(0.3).say(5).pause(2.5).audio

    async def requests() -> AsyncIterator[pb.StreamingRecognizeRequest]:
        yield pb.StreamingRecognizeRequest(config=pb.StreamingConfig())
        yield pb.StreamingRecognizeRequest(audio=speech.tobytes())
        await asyncio.Event().wait()

    asked = requests()
    with pytest.raises(Unavailable, match="no encoder"):
        async for _ in streaming_recognize(server.sessions, asked, Open()):
            continue
    # As the end of a call does: nobody may be reading by then.
    async for _ in asked:
        continue
