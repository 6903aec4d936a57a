"""Splits a text into the units that get times: characters where a script has no spaces, else words."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import NamedTuple

from tandem.script import is_unspaced

# Between letters or digits these belong to the word: don't, well-known, 3.14, 10:30, R&D, a/b.
_JOINERS = frozenset("'’-‐‑.,:/&@_+·")


class TextUnit(NamedTuple):
    """text[start:end] of the whole text: one character or one word, without punctuation around it."""

    start: int
    end: int


@lru_cache(maxsize=16_384)
def _is_spoken(char: str) -> bool:
    return char.isalnum() or unicodedata.category(char)[0] == "M"


def text_units(text: str) -> list[TextUnit]:
    """Units in order; what lies between them (spaces, punctuation, symbols) is not spoken."""
    units: list[TextUnit] = []
    position = 0
    while position < len(text):
        if not _is_spoken(text[position]):
            position += 1
            continue
        end = position + 1
        if is_unspaced(text[position]):
            while end < len(text) and unicodedata.category(text[end])[0] == "M":
                end += 1
        else:
            end = _word_end(text, end)
        units.append(TextUnit(position, end))
        position = end
    return units


def _word_end(text: str, end: int) -> int:
    while end < len(text):
        follows = end + 1 < len(text) and text[end + 1].isalnum() and not is_unspaced(text[end + 1])
        if is_unspaced(text[end]) or not (_is_spoken(text[end]) or (text[end] in _JOINERS and follows)):
            break
        end += 1
    return end
