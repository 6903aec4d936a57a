"""Replacements in final text that a client asks for: `wrong=>right`, sure where hotwords only bias."""

from __future__ import annotations

import re
from collections.abc import Mapping

_SEPARATOR = re.compile(r"=>|->|→")
_COMMENT = re.compile(r"^\s*#.*$", re.MULTILINE)


def parse_replacements(text: str) -> dict[str, str]:
    """Pairs of "wrong=>right,other->better", also one a line, where "#" begins a comment.

    A word alone stays as it is, even where a shorter left side is found in it.
    """
    pairs: dict[str, str] = {}
    for entry in re.split(r"[,，\n]", _COMMENT.sub("", text)):
        wrong, *right = (part.strip() for part in _SEPARATOR.split(entry, maxsplit=1))
        if wrong:
            pairs[wrong] = right[0] if right else wrong
    return pairs


def apply_replacements(text: str, pairs: Mapping[str, str]) -> str:
    """`text` with every left side replaced, the longest first; what was replaced is not looked at again."""
    if not pairs:
        return text
    longest_first = sorted(pairs, key=len, reverse=True)
    return re.sub("|".join(map(re.escape, longest_first)), lambda found: pairs[found[0]], text)
