"""Live segments in the encoder tier: spans answer as whole calls do, mistakes end what they concern."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import status_pb2

from tandem.encoder.v1 import encoder_pb2 as pb
from tandem.encoder.v1 import encoder_pb2_grpc
from tandem.errors import (
    CapabilityMissing,
    InternalError,
    InvalidRequest,
    LimitExceeded,
    Overloaded,
    TandemError,
)
from tandem.rpc.channels import channel_options
from tandem.rpc.status import from_rpc_error, from_status
from tandem.rpc.tensors import from_message
from tests.support.live import pcm
from tests.support.services import encoder

SPEECH = pcm("english_9s.wav")
Stub = encoder_pb2_grpc.EncoderServiceStub


@pytest.fixture(scope="module")
def channel() -> Iterator[grpc.Channel]:
    # Live callers may be quiet for longer than those of whole segments.
    limits = ["--max-segment", "30", "--max-live-seconds", "40", "--receive-timeout", "2"]
    with (
        encoder(arguments=limits) as target,
        grpc.insecure_channel(target, options=channel_options()) as channel,
    ):
        yield channel


@pytest.fixture(scope="module")
def stub(channel: grpc.Channel) -> Stub:
    return Stub(channel)


def ask(
    number: int, start: int, end: int, audio: bytes = b"", segment: int = 0, **more: Any
) -> pb.TranscribeLiveRequest:
    span = pb.LiveSpan(id=number, start=start, end=end, **more)
    return pb.TranscribeLiveRequest(segment=segment, audio=audio, span=span)


def answers(stub: Stub, *requests: pb.TranscribeLiveRequest) -> dict[int, pb.TranscribeLiveResponse]:
    return {answer.id: answer for answer in stub.TranscribeLive(iter(requests), timeout=60)}


def error_of(answer: pb.TranscribeLiveResponse) -> TandemError:
    return from_status(status_pb2.Status.FromString(answer.error))


def heard_whole(stub: Stub, samples: np.ndarray[Any, np.dtype[np.int16]]) -> pb.TranscribeResponse:
    """Compact posteriors of a clip, by a call of its own."""
    audio = pb.AudioConfig(format=pb.SAMPLE_FORMAT_S16LE)
    config = pb.TranscribeConfig(audio=audio, ctc=pb.CTC_MODE_COMPACT, ctc_only=True)
    requests = [pb.TranscribeRequest(config=config), pb.TranscribeRequest(audio=samples.tobytes())]
    return next(r for r in stub.Transcribe(iter(requests), timeout=60) if r.HasField("compact_ctc"))


def test_spans_of_audio_sent_once_are_heard_as_whole_clips(stub: Stub) -> None:
    compact: dict[str, Any] = {"config": pb.TranscribeConfig(ctc=pb.CTC_MODE_COMPACT, ctc_only=True)}
    data = SPEECH.tobytes()
    got = answers(
        stub,
        ask(1, 0, 32_000, data[:64_000], **compact),
        ask(2, 16_000, 80_000, data[64_000:160_000], **compact),
        ask(3, 16_000, 80_000),
        ask(4, 0, 50_001, data[:150_000], segment=7, **compact),
    )
    assert sorted(got) == [1, 2, 3, 4]
    for number, (start, end) in {1: (0, 32_000), 2: (16_000, 80_000), 4: (0, 50_001)}.items():
        whole = heard_whole(stub, SPEECH[start:end]).compact_ctc
        assert got[number].compact_ctc.top_ids.spec == whole.top_ids.spec
        heard, expected = (
            from_message(message.blank_log_probs).float32() for message in (got[number].compact_ctc, whole)
        )
        assert np.allclose(heard, expected, atol=0.02)
    assert len(got[3].path.token_ids) == len(got[3].path.frames) > 0
    assert list(got[3].path.frames) == sorted(got[3].path.frames)
    assert not got[3].HasField("compact_ctc")


def test_a_span_that_fails_ends_nothing_else(stub: Stub) -> None:
    got = answers(
        stub,
        ask(1, 0, 16_000, SPEECH[:32_000].tobytes(), config=pb.TranscribeConfig()),
        ask(2, 0, 16_000, config=pb.TranscribeConfig(ctc=pb.CTC_MODE_DENSE, ctc_only=True)),
        ask(3, 0, 32_000),
    )
    assert isinstance(error_of(got[1]), CapabilityMissing)
    assert isinstance(error_of(got[2]), InvalidRequest)
    assert got[3].path.token_ids and not got[3].error


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        (pb.TranscribeLiveRequest(audio=b"abc"), InvalidRequest),
        (ask(1, 0, 16_000), InvalidRequest),
        (ask(1, 80, 8_000, bytes(32_000)), InvalidRequest),
        (ask(1, 0, 16_001, bytes(32_000)), InvalidRequest),
        (pb.TranscribeLiveRequest(audio=bytes(2 * 16_000 * 32)), LimitExceeded),
    ],
)
def test_requests_that_make_no_sense_end_the_stream(
    stub: Stub, request_: pb.TranscribeLiveRequest, kind: type[TandemError]
) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        answers(stub, request_)
    assert isinstance(from_rpc_error(refused.value), kind)


def test_live_audio_is_bounded_and_given_back(stub: Stub) -> None:
    def second(segment: int, **more: Any) -> pb.TranscribeLiveRequest:
        return pb.TranscribeLiveRequest(segment=segment, audio=bytes(2 * 16_000 * 15), **more)

    for _ in range(3):
        assert answers(stub, second(0), second(1), second(2, release=[0, 1]), ask(1, 0, 800, segment=2))
    with pytest.raises(grpc.RpcError) as refused:
        answers(stub, second(0), second(1), second(2))
    error = from_rpc_error(refused.value)
    assert isinstance(error, Overloaded) and error.retry_after
    with pytest.raises(grpc.RpcError) as refused:
        answers(stub, *(pb.TranscribeLiveRequest(segment=n, audio=bytes(800)) for n in range(20)))
    assert isinstance(from_rpc_error(refused.value), LimitExceeded)


def test_bytes_that_are_no_request_end_the_stream_and_give_its_audio_back(
    channel: grpc.Channel, stub: Stub
) -> None:
    raw: Any = channel.stream_stream("/tandem.encoder.v1.EncoderService/TranscribeLive")
    audio = pb.TranscribeLiveRequest(audio=bytes(2 * 16_000 * 20)).SerializeToString()
    for _ in range(3):
        with pytest.raises(grpc.RpcError) as refused:
            list(raw(iter([audio, b"\xff\xff\xff\xff"]), timeout=20))
        assert isinstance(from_rpc_error(refused.value), InternalError)
    assert answers(stub, ask(1, 0, 800, bytes(2 * 16_000 * 30))).keys() == {1}


def test_a_live_caller_may_be_quiet(stub: Stub) -> None:
    def pausing() -> Iterator[pb.TranscribeLiveRequest]:
        yield ask(1, 0, 16_000, SPEECH[:16_000].tobytes())
        time.sleep(2.5)
        yield ask(2, 0, 32_000, SPEECH[16_000:32_000].tobytes())

    assert [answer.id for answer in stub.TranscribeLive(pausing(), timeout=60)] == [1, 2]


def test_cancelled_spans_get_no_answer(stub: Stub) -> None:
    got = answers(
        stub,
        ask(1, 0, 32_000, SPEECH[:32_000].tobytes()),
        ask(2, 0, 16_000),
        pb.TranscribeLiveRequest(cancel=[1, 99]),
    )
    assert 2 in got and not got[2].error
    assert 1 not in got or got[1].path.token_ids
