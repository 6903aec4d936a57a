"""Replacements in final text that a client asks for: `wrong=>right`, sure where hotwords only bias."""

from __future__ import annotations

import re
from collections.abc import Mapping

_SEPARATOR = re.compile(r"=>|->|→")


def parse_replacements(text: str) -> dict[str, str]:
    """Pairs of "wrong=>right,other->better"; entries without a separator or a left side are left out."""
    pairs: dict[str, str] = {}
    for entry in re.split(r"[,，\n]", text):
        parts = _SEPARATOR.split(entry.strip(), maxsplit=1)
        if len(parts) == 2 and parts[0].strip():
            pairs[parts[0].strip()] = parts[1].strip()
    return pairs


def apply_replacements(text: str, pairs: Mapping[str, str]) -> str:
    """`text` with every left side replaced, the longest first; what was replaced is not looked at again."""
    if not pairs:
        return text
    longest_first = sorted(pairs, key=len, reverse=True)
    return re.sub("|".join(map(re.escape, longest_first)), lambda found: pairs[found[0]], text)
