"""Words and their times from made-up posteriors whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.align.emissions import compact_emissions, dense_emissions
from gateway.align.viterbi import AlignmentError, forced_align
from gateway.align.words import AlignedWord, WordAligner
from gateway.text.ctc_tokenizer import CtcTokenizer
from gateway.text.posteriors import CtcPosteriors
from gateway.text.units import text_units
from tests.golden.nano import DIRECTORY

_TOKENIZER = CtcTokenizer((DIRECTORY / "multilingual.tiktoken").read_bytes(), vocab_size=440)
_ALIGNER = WordAligner(_TOKENIZER)


def _align(text: str, posteriors: CtcPosteriors) -> list[AlignedWord]:
    return _ALIGNER.align(text, posteriors).words


def _heard(frames: list[int | None], top_k: int = 8) -> CtcPosteriors:
    """One entry per frame: the token heard, None for blank."""
    ids = [_TOKENIZER.blank_id if token is None else token for token in frames]
    log_probs = np.full((len(ids), 440), np.log(0.05 / 439), dtype=np.float32)
    log_probs[np.arange(len(ids)), ids] = np.log(0.95)
    return CtcPosteriors.from_dense(log_probs, _TOKENIZER.blank_id, top_k)


def _say(text: str, gap: int = 2) -> CtcPosteriors:
    """Every token of `text` heard for one frame, blanks between them."""
    frames: list[int | None] = []
    for token in _TOKENIZER.encode(text):
        frames += [None] * gap + [token]
    return _heard([*frames, None])


def _times(words: list[AlignedWord]) -> list[tuple[str, float, float]]:
    return [(word.text, word.start, word.end) for word in words]


def test_english_words() -> None:
    frames: list[int | None] = [None, *_TOKENIZER.encode("ab"), None, None, *_TOKENIZER.encode(" cd"), None]
    words = _align("ab cd", _heard(frames))
    assert [(w.text, w.start_char, w.end_char) for w in words] == [("ab", 0, 2), ("cd", 3, 5)]
    assert words[0].start == pytest.approx(0.06) and words[0].end == pytest.approx(0.18)
    assert words[1].end == pytest.approx((len(frames) - 1) * 0.06)
    assert all(word.score == pytest.approx(0.95, abs=0.01) for word in words)


def test_chinese_characters_even_when_a_token_holds_several() -> None:
    (token,) = _TOKENIZER.encode("热词列表")
    words = _align("热词列表", _heard([None, None, token, token, token, token, None]))
    assert [word.text for word in words] == ["热", "词", "列", "表"]
    assert [word.start for word in words] == pytest.approx([0.12, 0.18, 0.24, 0.3])
    assert [word.end for word in words] == pytest.approx([0.18, 0.24, 0.3, 0.36])


def test_characters_that_are_several_tokens() -> None:
    assert len(_TOKENIZER.encode("鑫")) > 1
    words = _align("鑫鑫", _say("鑫鑫"))
    assert [word.text for word in words] == ["鑫", "鑫"]
    assert words[0].end <= words[1].start


@pytest.mark.parametrize("heard", ["hello world", "hello, world."])
def test_punctuation_moves_no_word(heard: str) -> None:
    posteriors = _say(heard, gap=3)
    bare, written = _align("hello world", posteriors), _align("hello, world.", posteriors)
    assert _times(bare) == _times(written)
    assert "".join("hello, world."[w.start_char : w.end_char] for w in written) == "helloworld"


def test_a_branch_without_case_still_aligns() -> None:
    posteriors = _say("we met bob")
    words = _align("We met Bob.", posteriors)
    assert [word.text for word in words] == ["We", "met", "Bob"]
    assert _times(words)[1:] == [
        ("met", *_times(_align("we met bob", posteriors))[1][1:]),
        ("Bob", *_times(_align("we met bob", posteriors))[2][1:]),
    ]
    assert min(word.score for word in words) > 0.9


def test_words_that_were_not_heard_score_low() -> None:
    words = _align("ab zz", _say("ab cd"))
    assert words[0].score > 0.9 > 0.5 > words[1].score


def test_times_ascend() -> None:
    words = _align("the quick brown fox 我在滨海", _say("the quick brown fox 我在滨海"))
    times = [time for word in words for time in (word.start, word.end)]
    assert times == sorted(times) and len(words) == 8


def test_text_without_words_has_no_times() -> None:
    assert _align("", _say("ab")) == []
    assert _align("... ，！", _say("ab")) == []


def test_too_few_frames_are_an_error() -> None:
    with pytest.raises(AlignmentError, match="frames"):
        _align("hello world", _heard([None, None]))


def test_repeated_tokens_need_a_blank_between_them() -> None:
    with pytest.raises(AlignmentError, match="need 3 frames"):
        _align("aa" if len(_TOKENIZER.encode("aa")) == 2 else "zz", _heard([None, None]))


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("don't stop", ["don't", "stop"]),
        ('"Well-known," 3.14 at 10:30!', ["Well-known", "3.14", "at", "10:30"]),
        ("我在 Beijing 吃饭。", ["我", "在", "Beijing", "吃", "饭"]),
        ("$5 & R&D—no", ["5", "R&D", "no"]),
        ("안녕 하세요", ["안녕", "하세요"]),
        ("ラーメン", ["ラ", "ー", "メ", "ン"]),
        ("", []),
    ],
)
def test_text_units(text: str, units: list[str]) -> None:
    assert [text[unit.start : unit.end] for unit in text_units(text)] == units


def _speech_like(seed: int, frames: int, num_tokens: int, vocab: int) -> tuple[np.ndarray, np.ndarray]:
    """Dense posteriors as CTC branches give them: peaks, confusions, and tokens that were never heard."""
    random = np.random.default_rng(seed)
    targets = random.integers(0, vocab - 1, num_tokens)
    logits = random.normal(0, 1.5, (frames, vocab)).astype(np.float32)
    logits[:, vocab - 1] += 9
    peaks = np.sort(random.choice(np.arange(1, frames, 2), num_tokens, replace=False))
    for peak, target in zip(peaks, targets, strict=True):
        if random.random() < 0.03:
            logits[peak, random.integers(0, vocab - 1)] += 12
            continue
        logits[peak, target] += random.uniform(7, 14)
        logits[peak + random.choice([-1, 0]), random.integers(0, vocab - 1)] += random.uniform(0, 8)
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return logits, targets.astype(np.int64)


def test_compact_agrees_with_dense_within_a_frame_for_99_percent() -> None:
    close = total = 0
    for seed in range(10):
        log_probs, targets = _speech_like(seed, frames=500, num_tokens=160, vocab=2000)
        dense = forced_align(dense_emissions(log_probs, targets, 1999), targets)
        compact = CtcPosteriors.from_dense(log_probs, 1999, top_k=16)
        # Half precision, as on the wire.
        half = CtcPosteriors(
            compact.top_ids,
            compact.top_log_probs.astype(np.float16).astype(np.float32),
            compact.blank.astype(np.float16).astype(np.float32),
            compact.remainder.astype(np.float16).astype(np.float32),
            compact.vocab_size,
            compact.blank_id,
        )
        spans = forced_align(compact_emissions(half, targets), targets)
        apart = np.maximum(abs(dense.starts - spans.starts), abs(dense.ends - spans.ends))
        close += int((apart <= 1).sum())
        total += len(targets)
    assert close / total >= 0.99
