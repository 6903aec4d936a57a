"""The encoder tier as a process: tensors over the wire equal the published ones, bad calls hurt nobody."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator

import grpc
import numpy as np
import pytest
import soundfile

from tandem.encoder.v1 import encoder_pb2 as pb
from tandem.encoder.v1 import encoder_pb2_grpc
from tandem.encoder_client import encode_file
from tandem.errors import (
    CapabilityMissing,
    DeadlineExceeded,
    InvalidAudio,
    InvalidRequest,
    LimitExceeded,
    TandemError,
)
from tandem.rpc.channels import channel_options
from tandem.rpc.status import from_rpc_error
from tandem.rpc.tensors import TensorAssembler, from_message
from tests.support.services import NANO, encoder

WAVS = ("mandarin_6s.wav", "english_9s.wav", "mandarin_206ms.wav")
Stub = encoder_pb2_grpc.EncoderServiceStub
Request = pb.EncodeRequest | pb.TranscribeRequest


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with encoder(arguments=["--max-segment", "30"]) as target:
        yield target


@pytest.fixture(scope="module")
def stub(address: str) -> Iterator[Stub]:
    with grpc.insecure_channel(address, options=channel_options()) as channel:
        yield Stub(channel)


def pcm(name: str = "mandarin_206ms.wav") -> bytes:
    samples, _ = soundfile.read(NANO / name, dtype="int16")
    return bytes(samples.tobytes())


def messages(config: pb.EncodeConfig, *audio: bytes) -> Iterator[pb.EncodeRequest]:
    yield pb.EncodeRequest(config=config)
    yield from (pb.EncodeRequest(audio=piece) for piece in audio)


def s16(ctc: pb.CtcMode.ValueType = pb.CTC_MODE_NONE, num_samples: int | None = None) -> pb.EncodeConfig:
    audio = pb.AudioConfig(format=pb.SAMPLE_FORMAT_S16LE, num_samples=num_samples)
    return pb.EncodeConfig(audio=audio, ctc=ctc)


def failure(stub: Stub, requests: Iterator[pb.EncodeRequest]) -> TandemError:
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.Encode(requests, timeout=20))
    return from_rpc_error(caught.value)


@pytest.mark.parametrize("index", range(3))
def test_tensors_over_the_wire_equal_the_published_ones(address: str, index: int) -> None:
    expected = np.load(NANO / "expected.npz")
    tensors = encode_file(address, NANO / WAVS[index])
    for name in ("audio_embeds", "ctc_log_probs"):
        want, got = expected[f"{index}.{name}"], tensors[name].float32()
        assert got.shape == want.shape
        assert np.linalg.norm(got - want) / np.linalg.norm(want) < 1e-3


def test_compact_posteriors_agree_with_dense_ones_within_half_precision(stub: Stub) -> None:
    want = np.load(NANO / "expected.npz")["1.ctc_log_probs"]
    answers = list(stub.Encode(messages(s16(pb.CTC_MODE_COMPACT), pcm("english_9s.wav")), timeout=30))
    compact = next(answer.compact_ctc for answer in answers if answer.HasField("compact_ctc"))
    ids = from_message(compact.top_ids).array.astype(np.int64)
    top = from_message(compact.top_log_probs).float32()
    assert np.allclose(np.take_along_axis(want, ids, axis=1), top, atol=0.02)
    assert np.allclose(want[:, compact.blank_id], from_message(compact.blank_log_probs).float32(), atol=0.02)
    seconds = len(pcm("english_9s.wav")) / 32000
    assert compact.ByteSize() / seconds < 1700


def test_segments_of_one_burst_share_batches_and_keep_their_own_results(address: str) -> None:
    expected = np.load(NANO / "expected.npz")
    with grpc.insecure_channel(address) as channel:
        stub = Stub(channel)
        calls = [stub.Encode(messages(s16(), pcm(WAVS[i % 2])), timeout=60) for i in range(8)]
        answers = [list(call) for call in calls]
    for i, answer in enumerate(answers):
        data = b"".join(message.chunk.data for message in answer if message.HasField("chunk"))
        want = expected[f"{i % 2}.audio_embeds"]
        got = np.frombuffer(data, "<f4").reshape(want.shape)
        assert np.linalg.norm(got - want) / np.linalg.norm(want) < 1e-3


@pytest.mark.parametrize(
    ("requests", "error", "field"),
    [
        (lambda: iter(()), InvalidRequest, "config"),
        (lambda: iter([pb.EncodeRequest(audio=b"xx")]), InvalidRequest, "config"),
        (lambda: messages(pb.EncodeConfig(), b"xx"), InvalidRequest, "config.audio.format"),
        (lambda: messages(s16(), pcm(), b"x"), InvalidRequest, "audio"),
        (lambda: messages(s16(num_samples=5), pcm()), InvalidRequest, "audio"),
        (lambda: messages(s16(99), pcm()), InvalidRequest, "config.ctc"),  # type: ignore[arg-type]
        (lambda: messages(s16(), b""), InvalidAudio, None),
        (lambda: messages(s16(num_samples=31 * 16000)), LimitExceeded, None),
        (lambda: messages(s16(), bytes(31 * 32000)), LimitExceeded, None),
    ],
)
def test_bad_calls_get_typed_errors_and_the_next_call_is_served(
    stub: Stub, requests: object, error: type[TandemError], field: str | None
) -> None:
    caught = failure(stub, requests())  # type: ignore[operator]
    assert type(caught) is error
    if field is not None:
        assert [violation.field for violation in caught.violations] == [field]
    assert list(stub.Encode(messages(s16(), pcm()), timeout=20))[-1].HasField("timing")


def test_transcribe_without_a_decoder_says_what_is_missing(stub: Stub) -> None:
    config = pb.TranscribeConfig(audio=pb.AudioConfig(format=pb.SAMPLE_FORMAT_S16LE))
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.Transcribe(iter([pb.TranscribeRequest(config=config)]), timeout=20))
    assert type(from_rpc_error(caught.value)) is CapabilityMissing


def test_ctc_only_needs_no_decoder(stub: Stub) -> None:
    config = pb.TranscribeConfig(
        audio=pb.AudioConfig(format=pb.SAMPLE_FORMAT_S16LE), ctc=pb.CTC_MODE_COMPACT, ctc_only=True
    )
    requests = [pb.TranscribeRequest(config=config), pb.TranscribeRequest(audio=pcm())]
    kinds = [answer.WhichOneof("payload") for answer in stub.Transcribe(iter(requests), timeout=20)]
    assert kinds == ["header", "compact_ctc", "timing"]


def asking(*targets: int, ctc: pb.CtcMode.ValueType = pb.CTC_MODE_COMPACT) -> Iterator[pb.TranscribeRequest]:
    """A CTC-only call that keeps its stream open, and then names `targets`, if any."""
    audio = pb.AudioConfig(format=pb.SAMPLE_FORMAT_S16LE)
    yield pb.TranscribeRequest(config=pb.TranscribeConfig(audio=audio, ctc=ctc, ctc_only=True))
    yield pb.TranscribeRequest(audio=pcm("english_9s.wav"))
    yield pb.TranscribeRequest(audio_end=pb.AudioEnd())
    if targets:
        yield pb.TranscribeRequest(targets=pb.AlignTargets(token_ids=targets))


def at_once(audio: bytes, **fields: object) -> Iterator[pb.TranscribeRequest]:
    """A CTC-only call in one message."""
    config = pb.TranscribeConfig(
        audio=pb.AudioConfig(format=pb.SAMPLE_FORMAT_S16LE), ctc_only=True, whole_audio=audio
    )
    config.MergeFrom(pb.TranscribeConfig(**fields))  # type: ignore[arg-type]
    yield pb.TranscribeRequest(config=config)


def test_a_segment_in_one_message_gets_the_answer_of_one_in_parts(stub: Stub) -> None:
    parts = list(stub.Transcribe(asking(400, 7), timeout=30))
    request = at_once(pcm("english_9s.wav"), ctc=pb.CTC_MODE_COMPACT, targets_follow=True)
    targets = pb.TranscribeRequest(targets=pb.AlignTargets(token_ids=[400, 7]))
    header, answer, chunk = stub.Transcribe(iter([*request, targets]), timeout=30)
    assert header == parts[0]
    assert answer.answer.compact_ctc == parts[1].compact_ctc
    assert answer.answer.HasField("timing") and not answer.answer.HasField("tokens")
    assert chunk == parts[2]


@pytest.mark.parametrize(
    ("requests", "error", "field"),
    [
        (lambda: at_once(b"x"), InvalidRequest, "audio"),
        (lambda: at_once(pcm(), ctc=pb.CTC_MODE_DENSE), InvalidRequest, "config.ctc"),
        (lambda: at_once(pcm(), targets_follow=True), InvalidRequest, "config.ctc"),
        (lambda: at_once(bytes(31 * 32000)), LimitExceeded, None),
        (lambda: at_once(b""), InvalidAudio, None),
    ],
)
def test_a_bad_segment_in_one_message_is_refused(
    stub: Stub, requests: object, error: type[TandemError], field: str | None
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.Transcribe(requests(), timeout=20))  # type: ignore[operator]
    failed = from_rpc_error(caught.value)
    assert type(failed) is error
    assert [violation.field for violation in failed.violations] == ([field] if field else [])


def test_targets_get_their_exact_log_probabilities(stub: Stub) -> None:
    want = np.load(NANO / "expected.npz")["1.ctc_log_probs"]
    assert stub.GetModelInfo(pb.GetModelInfoRequest(), timeout=10).aligns_targets
    assembler = TensorAssembler(2**20)
    for answer in stub.Transcribe(asking(400, 7, 431), timeout=30):
        if answer.HasField("chunk"):
            assembler.add(answer.chunk)
    got = assembler.take("target_log_probs").float32()
    assert np.linalg.norm(got - want[:, [400, 7, 431, 439]]) / np.linalg.norm(got) < 1e-3


def test_a_caller_may_name_no_targets_after_all(stub: Stub) -> None:
    kinds = [answer.WhichOneof("payload") for answer in stub.Transcribe(asking(), timeout=30)]
    assert kinds == ["header", "compact_ctc", "timing"]


@pytest.mark.parametrize(
    ("requests", "field"),
    [
        (lambda: asking(7, 7), "targets.token_ids"),
        (lambda: asking(440), "targets.token_ids"),
        (lambda: asking(-1), "targets.token_ids"),
        (lambda: asking(7, ctc=pb.CTC_MODE_DENSE), "config.ctc"),
        (lambda: [*asking(), pb.TranscribeRequest(audio=b"xx")], "targets"),
        (lambda: [*asking(), pb.TranscribeRequest(targets=pb.AlignTargets())], "targets.token_ids"),
    ],
)
def test_bad_targets_are_refused(
    stub: Stub, requests: Callable[[], Iterable[pb.TranscribeRequest]], field: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.Transcribe(iter(requests()), timeout=20))
    error = from_rpc_error(caught.value)
    assert [violation.field for violation in error.violations] == [field]


@pytest.fixture(scope="module")
def impatient() -> Iterator[Stub]:
    """An encoder that waits a second for each message."""
    flags = ["--speaker-model", "none", "--receive-timeout", "1"]
    with encoder(arguments=flags) as target, grpc.insecure_channel(target) as channel:
        yield Stub(channel)


def stalling(*requests: Request) -> Iterator[Request]:
    """A caller that sends no more, and does not say so."""
    yield from requests
    threading.Event().wait(5)


CTC_ONLY = pb.TranscribeConfig(audio=pb.AudioConfig(format=pb.SAMPLE_FORMAT_S16LE), ctc_only=True)


@pytest.mark.parametrize(
    ("method", "requests"),
    [
        ("Encode", lambda: ()),
        ("Encode", lambda: messages(s16())),
        ("Encode", lambda: messages(s16(), pcm(), pcm())),
        ("Transcribe", lambda: ()),
        ("Transcribe", lambda: [pb.TranscribeRequest(config=CTC_ONLY), pb.TranscribeRequest(audio=pcm())]),
    ],
)
def test_who_sends_no_more_of_its_audio_is_not_waited_for(
    impatient: Stub, method: str, requests: Callable[[], Iterable[Request]]
) -> None:
    began = time.monotonic()
    with pytest.raises(grpc.RpcError) as caught:
        list(getattr(impatient, method)(stalling(*requests()), timeout=20))
    assert 0.9 < time.monotonic() - began < 4
    error = from_rpc_error(caught.value)
    assert type(error) is DeadlineExceeded
    assert "within 1 s" in str(error)


def test_audio_may_take_longer_than_each_of_its_messages(impatient: Stub) -> None:
    def slow() -> Iterator[pb.EncodeRequest]:
        for message in messages(s16(), *[pcm()] * 5):
            yield message
            time.sleep(0.3)

    began = time.monotonic()
    assert list(impatient.Encode(slow(), timeout=20))[-1].HasField("timing")
    assert time.monotonic() - began > 1.2


def test_model_info_and_tokenizers_describe_the_checkpoint(stub: Stub) -> None:
    info = stub.GetModelInfo(pb.GetModelInfoRequest(), timeout=10)
    assert (info.has_ctc, info.ctc_vocab_size, info.ctc_blank_id, info.hidden_size) == (True, 440, 439, 128)
    assert info.prompt_style.system_turn and info.prompt_style.think
    files: dict[str, bytes] = {}
    name = ""
    for piece in stub.GetTokenizers(pb.GetTokenizersRequest(), timeout=10):
        name = piece.file_name or name
        files[name] = files.get(name, b"") + piece.data
    assert files["tokenizer.json"] == (NANO / "Qwen3-0.6B" / "tokenizer.json").read_bytes()
    assert files["multilingual.tiktoken"] == (NANO / "multilingual.tiktoken").read_bytes()
