"""Readers of freely licensed English text; fetch_tts.py names packages and licences."""

from __future__ import annotations

import json
import re
import zlib
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
    """Six novels of Jane Austen (public domain), out of the R data base of the package janeaustenr."""
    lines = [text for chunk in _r_objects((root / "austen.rdb").read_bytes()) for text in _r_strings(chunk)]
    for paragraph in "\n".join(lines).split("\n\n"):
        if not paragraph.startswith(("CHAPTER", "VOLUME")):
            yield from split_sentences(re.sub(r"--", ", ", paragraph.replace("_", "")))


def _r_objects(data: bytes) -> Iterator[bytes]:
    """Objects of an R lazy-load data base: a big-endian length, then a zlib stream, again and again."""
    while len(data) > 4:
        stream = zlib.decompressobj()
        yield stream.decompress(data[4:])
        data = stream.unused_data


def _r_strings(data: bytes) -> Iterator[str]:
    """CHARSXP records of an R serialisation stream (XDR): flags that end in type 9, length, bytes."""
    at = 0
    while (at := data.find(b"\x09", at)) != -1:
        at += 1
        size = int.from_bytes(data[at : at + 4], "big")
        text = data[at + 4 : at + 4 + size] if size < 200 else b""
        if len(text) == size and data[at - 4] == 0 and all(c >= 32 for c in text):
            yield text.decode("utf-8", "ignore")
            at += 4 + size


def fortunes(root: Path) -> Iterator[str]:
    """Debian's fortune collection; verse, quotations' sources and dialogue are left out."""
    for path in sorted((root / "fortunes").iterdir()):
        if path.suffix or path.name in _NOT_PROSE:
            continue
        for item in path.read_text("utf-8", "ignore").split("\n%\n"):
            body = re.split(r"\n\s*--", item)[0]
            if not re.search(r"\t|\n {3}|:\n", body):
                yield from split_sentences(body)


_NOT_PROSE = {"songs-poems", "ascii-art", "perl", "knghtbrd", "debian", "zippy", "limerick"}
READERS: dict[str, Callable[[Path], Iterator[str]]] = {
    "chitchat": chitchat,
    "wordnet": wordnet,
    "austen": austen,
    "fortunes": fortunes,
}
