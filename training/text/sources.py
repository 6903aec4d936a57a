"""Readers of freely licensed English text; fetch_tts.py says which packages ship it and under which licence."""

from __future__ import annotations

import gzip
import json
import lzma
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from .clean import split_sentences


def wordnet(root: Path) -> Iterator[str]:
    """Example sentences of WordNet 3.0 (quoted parts of the glosses)."""
    for part in ("noun", "verb", "adj", "adv"):
        for line in (root / "wordnet" / f"data.{part}").read_text("latin-1").splitlines():
            if line.startswith("  ") or "|" not in line:
                continue
            gloss = line.split("|", 1)[1]
            yield from re.findall(r'"([^"]{8,200})"(?!\s*-)', gloss)


def chitchat(root: Path) -> Iterator[str]:
    """Typed small talk between students (chitchat-dataset, MIT)."""
    talks = json.loads((root / "chitchat.json").read_text("utf-8"))
    for talk in talks.values():
        for turn in talk["messages"]:
            for message in turn:
                yield from split_sentences(message["text"])


def austen(root: Path) -> Iterator[str]:
    """Six novels of Jane Austen (public domain), out of the R data files of janeaustenr."""
    for path in sorted((root / "austen").glob("*.rda")):
        data = path.read_bytes()
        for opener in (lzma.decompress, gzip.decompress):
            try:
                data = opener(data)
                break
            except (lzma.LZMAError, gzip.BadGzipFile):
                continue
        lines = [m[1].decode("utf-8", "ignore") for m in _r_strings(data)]
        for paragraph in "\n".join(lines).split("\n\n"):
            if not paragraph.startswith("CHAPTER"):
                yield from split_sentences(re.sub(r"(?<=\w)--", ", ", paragraph.replace("_", "")))


def _r_strings(data: bytes) -> Iterator[tuple[int, bytes]]:
    """CHARSXP records of an R serialisation stream (XDR): flags ending in type 9, length, bytes."""
    at = 0
    while (at := data.find(b"\x09", at)) != -1:
        at += 1
        size = int.from_bytes(data[at : at + 4], "big")
        if data[at - 4] == 0 and size < 200 and at + 4 + size <= len(data):
            text = data[at + 4 : at + 4 + size]
            if all(c >= 32 for c in text):
                yield at, text
                at += 4 + size


def fortunes(root: Path) -> Iterator[str]:
    """Debian's fortune collection; verse, quotations' sources and dialogue are left out."""
    for path in sorted((root / "fortunes").iterdir()):
        if path.suffix or path.name in {"songs-poems", "ascii-art", "perl", "knghtbrd", "debian", "zippy", "limerick"}:
            continue
        for item in path.read_text("utf-8", "ignore").split("\n%\n"):
            body = re.split(r"\n\s*--", item)[0]
            if not re.search(r"\t|\n {3}|:\n", body):
                yield from split_sentences(body)


READERS: dict[str, Callable[[Path], Iterator[str]]] = {
    "chitchat": chitchat,
    "wordnet": wordnet,
    "austen": austen,
    "fortunes": fortunes,
}
