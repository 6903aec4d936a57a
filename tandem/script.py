"""Which scripts are written without spaces between words, and how to join text accordingly."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import lru_cache

_UNSPACED_RANGES = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0x312F),  # CJK radicals, CJK punctuation, kana, bopomofo
    (0x31A0, 0x4DBF),  # bopomofo, kana extensions, enclosed CJK, Han extension A
    (0x4E00, 0x9FFF),  # Han
    (0xF900, 0xFAFF),  # Han compatibility
    (0xFF00, 0xFFEF),  # full-width and half-width forms
    (0x20000, 0x3FFFF),  # Han extensions
)


@lru_cache(maxsize=16_384)
def is_unspaced(char: str) -> bool:
    """Whether `char` belongs to writing without spaces: Han, kana, Thai, full-width punctuation."""
    code = ord(char)
    return any(low <= code <= high for low, high in _UNSPACED_RANGES)


def is_punctuation(char: str) -> bool:
    """Punctuation or a symbol (P* and S* of Unicode): something that is not spoken."""
    return unicodedata.category(char)[0] in "PS"


def _needs_space(left: str, right: str) -> bool:
    if left.isspace() or right.isspace():
        return False
    if is_unspaced(left) and (is_punctuation(left) or is_unspaced(right)):
        return False
    closing = unicodedata.category(right) in ("Pe", "Pf") or right in ",.!?;:%"
    return not (closing or (is_unspaced(right) and is_punctuation(right)))


def join_texts(texts: Iterable[str]) -> str:
    """Joins the texts of consecutive segments: a space between Latin words, none between Han characters."""
    joined = ""
    for text in texts:
        text = text.strip()
        if not text:
            continue
        if joined and _needs_space(joined[-1], text[0]):
            joined += " "
        joined += text
    return joined
