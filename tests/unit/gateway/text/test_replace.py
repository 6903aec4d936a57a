"""Replacements in final text that clients of the real-time service ask for."""

from __future__ import annotations

import pytest

from gateway.text.replace import apply_replacements, parse_replacements


def test_pairs_take_every_arrow_and_a_word_alone_stays() -> None:
    pairs = parse_replacements("fun asr=>FunASR, b->c，d→e\n # f=>g, h\nkept,=>x, gone=>")
    assert pairs == {"fun asr": "FunASR", "b": "c", "d": "e", "kept": "kept", "gone": ""}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a ab abc", "1 2 3"),
        ("nothing here", "nothing here"),
        ("aab", "12"),
    ],
)
def test_the_longest_wins_and_results_are_not_replaced_again(text: str, expected: str) -> None:
    assert apply_replacements(text, {"a": "1", "ab": "2", "abc": "3", "1": "no", "h": "h"}) == expected


def test_without_pairs_text_is_untouched() -> None:
    assert apply_replacements("a.b", {}) == "a.b"
    assert apply_replacements("a.b axb", {"a.b": "c"}) == "c axb"
