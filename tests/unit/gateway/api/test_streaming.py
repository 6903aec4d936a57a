"""StreamingRecognize over sessions whose decodes take no time: none is left behind."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.api.streaming import streaming_recognize
from tandem.asr.v1 import asr_pb2 as pb
from tandem.errors import InvalidRequest
from tests.unit.gateway.session.instant import InstantService


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
