"""Words with a known pronunciation: the lexicon of the synthesiser's English front end, by frequency."""

from __future__ import annotations

import gzip
import json
from pathlib import Path


def pronounced(assets: Path) -> dict[str, bool]:
    """Word forms of hibari's US lexicons; True for the hand-checked ("gold") one."""
    words: dict[str, bool] = {}
    for name, sure in (("silver", False), ("gold", True)):
        with gzip.open(assets / f"lexicon_us_{name}.json.gz", "rt", encoding="utf-8") as handle:
            words.update(dict.fromkeys(json.load(handle), sure))
    return words


def _stems(word: str) -> list[str]:
    found = []
    for ending, puts in (
        ("s", ("",)),
        ("es", ("", "e")),
        ("ed", ("", "e")),
        ("ing", ("", "e")),
        ("ies", ("y",)),
        ("ied", ("y",)),
        ("'s", ("",)),
        ("s'", ("s", "")),
    ):
        if word.endswith(ending) and len(word) > len(ending) + 2:
            found += [word.removesuffix(ending) + put for put in puts]
            base = word.removesuffix(ending)
            if len(base) > 3 and base[-1] == base[-2]:
                found.append(base[:-1])
    return found


def load(assets: Path, frequent: list[str], rare_from: int = 60_000) -> frozenset[str]:
    """Lower-case words of `frequent` (most frequent first) that the lexicon reads, itself or by inflection.

    Beyond rank `rare_from` only hand-checked entries count.
    """
    lexicon = pronounced(assets)
    lower = {w.lower(): sure or lexicon.get(w.lower(), False) for w, sure in lexicon.items()}
    kept = set()
    for rank, word in enumerate(frequent):
        forms = [word, *_stems(word)]
        if any(lower.get(form, False) if rank >= rare_from else form in lower for form in forms):
            kept.add(word)
    return frozenset(w for w in kept if len(w) > 1 or w in "aio")
