"""Where transcripts go: standard output, one file that grows, or a folder with a file per recording."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

from tandem.cli.formats import render
from tandem.cli.usage import UsageError
from tandem.errors import AlreadyExists, InvalidRequest
from tandem.inputs import Recording
from tandem.results import Transcript

_BY_SUFFIX = {".txt": "text", ".json": "json", ".jsonl": "jsonl", ".srt": "srt", ".vtt": "vtt", ".tsv": "tsv"}
_SUFFIX = {style: suffix for suffix, style in _BY_SUFFIX.items()}
_ONE_EACH = ("json", "srt", "vtt")
"""Formats of which a file has one: two after each other are no valid file."""
_UNSAFE = re.compile(r"[/%\0]|^\.+")


@dataclass(frozen=True, slots=True)
class Style:
    """One of tandem.cli.formats.FORMATS; `details` adds token ids to json."""

    name: str = "text"
    details: bool = False

    def render(self, item: Recording, transcript: Transcript) -> str:
        return render(item.key, item.name, transcript, self.name, details=self.details)


def style_for(output: str | None, wanted: str | None) -> str:
    """The format asked for, else the one that the output's name says, else text."""
    return wanted or _BY_SUFFIX.get(Path(output).suffix.lower() if output else "", "text")


class Sink(Protocol):
    """Takes transcripts one by one; what was taken is kept if the command is interrupted."""

    def has(self, item: Recording) -> bool:
        """Whether an earlier run has written this recording."""
        ...

    def write(self, item: Recording, transcript: Transcript) -> None:
        """Raises AlreadyExists where this would replace what was written for another recording."""
        ...


@dataclass(slots=True)
class StdoutSink:
    """`headings`: text of several recordings is told apart by a line with the file's name."""

    style: Style
    headings: bool = False

    def has(self, item: Recording) -> bool:
        return False

    def write(self, item: Recording, transcript: Transcript) -> None:
        if self.headings:
            print(f"== {item.name}")
        print(self.style.render(item, transcript), flush=True)


@dataclass(slots=True)
class FileSink:
    """One file; each transcript is on disk before the next is taken."""

    style: Style
    file: IO[str]
    headings: bool = False
    done: set[tuple[str, str]] = field(default_factory=set)

    def has(self, item: Recording) -> bool:
        return (item.key, item.name) in self.done

    def write(self, item: Recording, transcript: Transcript) -> None:
        if self.headings:
            self.file.write(f"== {item.name}\n")
        text = self.style.render(item, transcript)
        self.file.write(text if text.endswith("\n") else text + "\n")
        self.file.flush()


@dataclass(slots=True)
class FolderSink:
    """A file per recording, named by its key; whole or not there. Files of earlier runs are replaced."""

    style: Style
    folder: Path
    resume: bool = False
    written: set[tuple[int, int]] = field(default_factory=set)
    """Device and inode of each file of this run."""

    def has(self, item: Recording) -> bool:
        return self.resume and self._path(item).exists()

    def write(self, item: Recording, transcript: Transcript) -> None:
        path, text = self._path(item), self.style.render(item, transcript)
        # Not by its name: on some disks two names, as with capitals and without, are one file.
        if path.exists() and _identity(path) in self.written:
            raise AlreadyExists(f"{item.name}: {path} has the transcript of another recording")
        part = path.with_name(path.name + ".part")
        part.write_text(text if text.endswith("\n") else text + "\n", encoding="utf-8")
        part.replace(path)
        self.written.add(_identity(path))

    def _path(self, item: Recording) -> Path:
        return self.folder / (_file_name(item.key) + _SUFFIX[self.style.name])


def _file_name(key: str) -> str:
    """Another one for every key: what a file's name cannot have, or is hidden by, is percent-encoded."""
    return _UNSAFE.sub(lambda found: "".join(f"%{ord(character):02X}" for character in found[0]), key)


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


@contextlib.contextmanager
def open_sink(output: str | None, style: Style, *, resume: bool, several: bool) -> Iterator[Sink]:
    """The sink for `output`: None is standard output; a folder has a file per recording.

    A name that ends with a slash is a folder's, which is made where it is not there. An existing file is
    replaced; with `resume` it is continued, which takes format jsonl. Raises UsageError for what does not go
    together, before anything is written, and OSError.
    """
    headings = several and style.name == "text"
    if output is None:
        if resume:
            raise UsageError("--resume continues an --output file or folder")
        yield StdoutSink(style, headings)
    elif _is_folder(output):
        folder = Path(output)
        folder.mkdir(parents=True, exist_ok=True)
        yield FolderSink(style, folder, resume)
    else:
        if resume and style.name != "jsonl":
            raise UsageError("--resume continues jsonl or a folder")
        if several and style.name in _ONE_EACH:
            raise UsageError(f"one {style.name} file cannot have several recordings: give a folder, or jsonl")
        path = Path(output)
        done = _finished(path) if resume and path.exists() else set()
        with path.open("a" if resume else "w", encoding="utf-8") as file:
            yield FileSink(style, file, headings, done)


def _is_folder(output: str) -> bool:
    return output.endswith(("/", os.sep)) or Path(output).is_dir()


def _finished(output: Path) -> set[tuple[str, str]]:
    """Key and file of each record; a last line that an interruption cut off is removed."""
    done: set[tuple[str, str]] = set()
    good = 0
    with output.open("rb+") as file:
        for line in file:
            try:
                record: Any = json.loads(line) if line.endswith(b"\n") else None
                done.add((record["key"], record["file"]))
            except (ValueError, KeyError, TypeError) as error:
                if file.read(1):
                    raise InvalidRequest(f"{output} is no output of this command: {line[:80]!r}") from error
                print(f"{output}: the last line is incomplete and will be written again", file=sys.stderr)
                break
            good += len(line)
        file.truncate(good)
    return done
