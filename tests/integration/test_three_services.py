"""The whole path as processes, with both decoder engines: greedy ids equal the published implementation's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.align.words import WordAligner
from gateway.text.ctc_tokenizer import CtcTokenizer
from gateway.text.posteriors import CtcPosteriors
from tandem import Client, RecognizeOptions
from tandem.client import ServerFile
from tandem.encoder_client import encode_file
from tandem.errors import InvalidAudio, InvalidRequest, LimitExceeded
from tandem.launcher import Stack
from tests.support.services import NANO, stack

CASES: list[dict[str, Any]] = [
    case
    for case in json.loads((NANO / "expected.json").read_text(encoding="utf-8"))["cases"]
    if "greedy_token_ids" in case
]


@pytest.fixture(scope="module", params=["transformers", "vllm"])
def services(request: pytest.FixtureRequest) -> Iterator[Stack]:
    with stack(NANO, request.param, ["--dtype", "fp32", "--max-model-len", "1024"]) as running:
        yield running


@pytest.fixture(scope="module")
def client(services: Stack) -> Iterator[Client]:
    with Client(services.address) as connected:
        yield connected


@pytest.mark.parametrize("case", CASES, ids=[case["case"] for case in CASES])
def test_prompt_and_greedy_ids_equal_the_published_ones(client: Client, case: dict[str, Any]) -> None:
    options = RecognizeOptions(
        language=case["language"],
        hotwords=tuple(case["hotwords"]),
        itn=case["itn"],
        vad=False,
        details=True,
        max_new_tokens=len(case["greedy_token_ids"]),
    )
    transcript = client.recognize(NANO / case["wav"], options, timeout=60)
    (segment,) = transcript.segments
    assert list(segment.prompt_token_ids) == case["prompt_token_ids"]
    assert list(segment.token_ids) == case["greedy_token_ids"]
    assert transcript.timing.decode > 0


def test_word_times_are_those_of_dense_alignment(services: Stack, client: Client) -> None:
    wav = NANO / "english_9s.wav"
    options = RecognizeOptions(vad=False, max_new_tokens=24)
    (segment,) = client.recognize(wav, options, timeout=60).segments
    dense = encode_file(services.config.addresses.encoder, wav)["ctc_log_probs"].float32()
    vocab_size, blank = dense.shape[1], dense.shape[1] - 1
    aligner = WordAligner(CtcTokenizer((NANO / "multilingual.tiktoken").read_bytes(), vocab_size))

    def times(top_k: int) -> list[tuple[str, float, float]]:
        posteriors = CtcPosteriors.from_dense(dense, blank, top_k)
        return [(word.text, word.start, word.end) for word in aligner.align(segment.text, posteriors).words]

    found = [(word.text, round(word.start, 3), round(word.end, 3)) for word in segment.words]
    assert times(vocab_size - 1) == found and len(found) > 5
    # The text is noise to the CTC branch: its best 16 tokens a frame would not have been enough.
    assert times(16) != found


def test_errors_of_each_kind_are_typed_and_the_service_goes_on(client: Client) -> None:
    good = (NANO / "mandarin_206ms.wav").read_bytes()
    short = RecognizeOptions(vad=False, max_new_tokens=4)
    with pytest.raises(InvalidRequest) as empty:
        client.recognize(b"", short, timeout=30)
    assert [violation.field for violation in empty.value.violations] == ["audio"]
    with pytest.raises(InvalidRequest) as path:
        client.recognize(ServerFile(NANO / "mandarin_206ms.wav"), short, timeout=30)
    assert [violation.field for violation in path.value.violations] == ["audio_path"]
    with pytest.raises(InvalidAudio):
        client.recognize(b"this is no recording" * 50, short, timeout=30)
    with pytest.raises(LimitExceeded):
        client.recognize(good, RecognizeOptions(vad=False, max_new_tokens=100_000), timeout=30)
    assert client.recognize(good, short, timeout=60).segments[0].end == pytest.approx(0.206, abs=0.001)


def test_capabilities_name_the_model_and_its_limits(client: Client) -> None:
    capabilities = client.capabilities()
    assert capabilities.model == str(NANO)
    assert len(capabilities.model_hash) == 64
    assert capabilities.max_segment_duration.seconds == 60
