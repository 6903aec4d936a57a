"""The CTC vocabulary as published, and reading compact posteriors greedily."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from gateway.text.ctc_text import greedy_text, has_speech
from gateway.text.ctc_tokenizer import CtcTokenizer
from gateway.text.ctc_vocabulary import special_tokens
from gateway.text.posteriors import CtcPosteriors
from tandem.ctc import CtcVocabularyError
from tests.golden.nano import DIRECTORY, load_golden

_VOCABULARY = (DIRECTORY / "multilingual.tiktoken").read_bytes()


def test_published_vocabulary_size_and_ids() -> None:
    lines = [base64.b64encode(bytes([i])).decode() + f" {i}" for i in range(256)]
    lines += [base64.b64encode(f" w{i}".encode()).decode() + f" {i}" for i in range(256, 58836)]
    tokenizer = CtcTokenizer("\n".join(lines).encode(), vocab_size=60515)
    assert tokenizer.blank_id == 60514 == tokenizer.special_ids["<|30.00|>"]
    expected = {"<|endoftext|>": 58836, "<|en|>": 58838, "<|ASR|>": 58943, "<|HAPPY|>": 58954}
    expected |= {"<|nospeech|>": 58962, "<|SPECIAL_TOKEN_1|>": 58964, "<|0.00|>": 59014}
    assert {name: tokenizer.special_ids[name] for name in expected} == expected


def test_specials_reach_only_as_far_as_the_head() -> None:
    tokenizer = CtcTokenizer(_VOCABULARY, vocab_size=440)
    assert len(tokenizer.special_ids) == 64
    assert max(tokenizer.special_ids.values()) == tokenizer.blank_id == 439


@pytest.mark.parametrize("vocab_size", [100, 376, 376 + len(special_tokens()) + 1])
def test_a_head_that_does_not_fit_is_refused(vocab_size: int) -> None:
    with pytest.raises(CtcVocabularyError):
        CtcTokenizer(_VOCABULARY, vocab_size)


@pytest.mark.parametrize("data", [b"AA== 0\nAQ==", b"!!!! 0", b"AA== 0\nAQ== 2"])
def test_a_damaged_vocabulary_is_refused(data: bytes) -> None:
    with pytest.raises(CtcVocabularyError):
        CtcTokenizer(data, vocab_size=5)


def test_spelt_out_specials_are_plain_text() -> None:
    tokenizer = CtcTokenizer(_VOCABULARY, vocab_size=440)
    ids = tokenizer.encode("say <|endoftext|> now")
    assert max(ids) < tokenizer.num_text_tokens
    assert tokenizer.decode(ids) == "say <|endoftext|> now"


def test_characters_split_over_tokens_are_merged() -> None:
    tokenizer = CtcTokenizer(_VOCABULARY, vocab_size=440)
    split = list("é".encode())
    assert tokenizer.decode(split) == "é"
    assert tokenizer.decode([*split, tokenizer.special_ids["<|en|>"], split[0]]) == "é"


@pytest.mark.parametrize("recording", [0, 1, 2])
@pytest.mark.parametrize("top_k", [1, 8])
def test_greedy_ids_of_the_published_implementation(recording: int, top_k: int) -> None:
    golden = load_golden()
    case = golden.cases[f"{recording}.ctc"]
    log_probs = golden.arrays[f"{recording}.ctc_log_probs"]
    posteriors = CtcPosteriors.from_dense(log_probs, case["ctc_blank_id"], top_k)
    assert posteriors.greedy_ids() == case["ctc_greedy_ids"]


def test_compact_posteriors_sum_to_one() -> None:
    log_probs = load_golden().arrays["0.ctc_log_probs"]
    compact = CtcPosteriors.from_dense(log_probs, 439, 8)
    mass = np.exp(compact.top_log_probs).sum(1) + np.exp(compact.blank) + np.exp(compact.remainder)
    np.testing.assert_allclose(mass, 1.0, atol=1e-5)
    assert not (compact.top_ids == 439).any()


def _posteriors(frames: list[int], vocab_size: int = 440) -> CtcPosteriors:
    log_probs = np.full((len(frames), vocab_size), np.log(0.1 / (vocab_size - 1)), dtype=np.float32)
    log_probs[np.arange(len(frames)), frames] = np.log(0.9)
    return CtcPosteriors.from_dense(log_probs, vocab_size - 1, 8)


def test_greedy_text_collapses_repeats_across_blanks() -> None:
    tokenizer = CtcTokenizer(_VOCABULARY, vocab_size=440)
    a, el, blank = ord("a"), ord("l"), tokenizer.blank_id
    assert greedy_text(_posteriors([blank, a, a, el, blank, el, el, blank]), tokenizer) == "all"


def test_has_speech_ignores_blanks_and_specials() -> None:
    tokenizer = CtcTokenizer(_VOCABULARY, vocab_size=440)
    special, blank = tokenizer.special_ids["<|en|>"], tokenizer.blank_id
    assert not has_speech(_posteriors([blank, special, blank]), tokenizer)
    assert has_speech(_posteriors([blank, ord("a"), blank]), tokenizer)
