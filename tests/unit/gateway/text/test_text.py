"""Clean-up, joining, the repetition guard, budgets and streaming decode."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer

from gateway.text.budget import output_budget
from gateway.text.clean import clean_transcript
from gateway.text.detokenize import Detokenizer
from gateway.text.repetition import collapse_repetitions, find_repetition
from tandem.script import join_texts
from tests.golden.nano import DIRECTORY

_TOKENIZER_JSON = (DIRECTORY / "Qwen3-0.6B" / "tokenizer.json").read_bytes()


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("<|im_end|>hello<|nospeech|>", "hello"),
        ("<|zh|><|NEUTRAL|>你好<|12.34|>", "你好"),
        ("<think>\n\n</think>\n\nhello", "hello"),
        ("hello /sil world /sil", "hello world"),
        ("hello [breath] world</strong>", "hello world"),
        ("a  b\n c\ufffd", "a b c"),
    ],
)
def test_known_specials_are_removed(raw: str, expected: str) -> None:
    assert clean_transcript(raw) == expected


@pytest.mark.parametrize(
    "text",
    [
        '"Yes," she said.',
        "¥300 & $5 | 10%",
        "[sic] <b> a < b > c",
        "the path /silent/night and 0xFFFFAA",
        "“引用”【注】",
    ],
)
def test_what_was_said_stays(text: str) -> None:
    assert clean_transcript(text) == text


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["你好。", "世界"], "你好。世界"),
        (["你好", "世界"], "你好世界"),
        (["Hello.", "World."], "Hello. World."),
        (["Hello.", "你好。", "Bye."], "Hello. 你好。Bye."),
        (["안녕", "하세요"], "안녕 하세요"),
        (["สวัสดี", "ครับ"], "สวัสดีครับ"),
        (["wait", ", please"], "wait, please"),
        ([" a ", "", "  ", "b"], "a b"),
        ([], ""),
    ],
)
def test_join_texts(texts: list[str], expected: str) -> None:
    assert join_texts(texts) == expected


def test_loops_are_cut_and_the_rest_stays() -> None:
    looping = "So we went home. " + "and then we " * 9 + "slept."
    assert collapse_repetitions(looping) == "So we went home. and then we slept."
    assert collapse_repetitions("谢谢大家的收看" * 6) == "谢谢大家的收看"


def test_a_loop_that_the_ctc_heard_stays() -> None:
    chant = "what do we want, " * 5
    assert collapse_repetitions(chant, ctc_text="what do we want " * 5) == chant
    assert collapse_repetitions(chant, ctc_text="what do we want what do we want") == chant[: 2 * 17]


def test_what_was_promised_of_a_loop_stays() -> None:
    promised = "I said go away go away go"
    text = promised + " away go away and then he left"
    assert (
        collapse_repetitions(text, settled=len(promised)) == "I said go away go away go away and then he left"
    )
    later = "We begin. " + "and we go " * 6
    assert collapse_repetitions(later, settled=10) == "We begin. and we go "


@pytest.mark.parametrize(
    "text",
    [
        "no no no no no",
        "哈哈哈哈哈哈",
        "00000000000000000000000000",
        "12 12 12 12 12 12 12 12 12 12",
        "She said that he said that they said that.",
        "",
    ],
)
def test_how_people_speak_is_no_loop(text: str) -> None:
    assert find_repetition(text) is None
    assert collapse_repetitions(text) == text


def test_output_budget_grows_with_duration_up_to_the_ceiling() -> None:
    assert output_budget(0.0) == 32
    assert output_budget(10.0) == 192
    assert output_budget(600.0) == 1024
    assert output_budget(10.0, tokens_per_second=5, ceiling=60) == 60
    with pytest.raises(ValueError, match="seconds"):
        output_budget(-1.0)


@pytest.mark.parametrize("text", ["héllo 我在滨海 🎉 done", "plain words", "新区有房"])
def test_streaming_decode_never_splits_a_character(text: str) -> None:
    ids = Tokenizer.from_str(_TOKENIZER_JSON.decode()).encode(text, add_special_tokens=False).ids
    detokenizer = Detokenizer(_TOKENIZER_JSON)
    stream = detokenizer.stream()
    deltas = [stream.push([token_id]) for token_id in [*ids, 2]]
    assert "\ufffd" not in "".join(deltas)
    assert "".join(deltas) == text
    assert stream.finish() == ""
