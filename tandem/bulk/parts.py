"""What a bulk job writes: parts that are whole or not there, by which a later run knows what is done."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tandem.cli.formats import to_dict
from tandem.errors import InvalidRequest
from tandem.many import Failure
from tandem.results import RecognizeOptions, Transcript

FORMATS = ("jsonl", "parquet")
Record = dict[str, Any]

_WORD = pa.struct([("text", pa.string()), *((name, pa.float64()) for name in ("start", "end", "score"))])
_SEGMENT = pa.struct(
    [
        ("text", pa.string()),
        ("start", pa.float64()),
        ("end", pa.float64()),
        ("speaker", pa.string()),
        ("channel", pa.int32()),
        ("words", pa.list_(_WORD)),
    ]
)
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "key", "file", "text", "language", "timestamp_source")),
        ("duration", pa.float64()),
        ("segments", pa.list_(_SEGMENT)),
    ]
)
"""Of Parquet parts."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A recording of the manifest. `file` is what the manifest calls it, `path` where every worker finds it.

    `id` names the recording together with how it is recognised: the same file with other options is another
    piece of work.
    """

    id: str
    key: str
    file: str
    path: str

    @classmethod
    def of(cls, key: str, file: str, path: Path, options: RecognizeOptions) -> Entry:
        asked = {name: value for name, value in asdict(options).items() if name != "request_id"}
        text = json.dumps([key, file, asked], sort_keys=True, ensure_ascii=False)
        return cls(hashlib.sha256(text.encode()).hexdigest()[:24], key, file, str(path.absolute()))


def result(entry: Entry, transcript: Transcript) -> Record:
    """What a part says of a recording that was transcribed."""
    return {"id": entry.id, "key": entry.key, "file": entry.file, **to_dict(transcript, details=False)}


def failure(entry: Entry, error: Failure) -> Record:
    """What is said of one that was not."""
    reason = getattr(error, "reason", "INVALID_AUDIO" if isinstance(error, ValueError) else "UNREADABLE")
    return {**asdict(entry), "reason": reason, "error": str(error)}


@dataclass(frozen=True, slots=True)
class Parts:
    """The folder of one job's results, in one of FORMATS: one job at a time, seen by all its machines."""

    folder: Path
    format: str = "jsonl"

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise InvalidRequest.of("format", f"{self.format!r} is not one of {', '.join(FORMATS)}")

    def begin(self) -> set[str]:
        """Make the folder; the ids that are done. What failed before will be tried again."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for pattern in ("failed-*.jsonl", ".failed-*", ".part-*"):
            for leftover in self.folder.glob(pattern):
                leftover.unlink()
        done: set[str] = set()
        for part in self.folder.glob("part-*.*"):
            done |= _ids(part)
        return done

    def write(self, entries: Sequence[Entry], done: Iterable[Record], failed: Iterable[Record]) -> None:
        """Results and failures of these entries. Written again after a crash, they replace themselves."""
        name = hashlib.sha256("".join(entry.id for entry in entries).encode()).hexdigest()[:16]
        _write(self.folder / f"failed-{name}.jsonl", list(failed), _jsonl)
        _write(self.folder / f"part-{name}.{self.format}", list(done), _WRITERS[self.format])

    def failures(self) -> list[Record]:
        """Of the last run."""
        lines = (path.read_text(encoding="utf-8") for path in sorted(self.folder.glob("failed-*.jsonl")))
        return [json.loads(line) for text in lines for line in text.splitlines()]


def _write(path: Path, records: list[Record], writer: Callable[[Path, list[Record]], None]) -> None:
    """Under its name only once it is whole and on disk; a part without records is none."""
    if not records:
        path.unlink(missing_ok=True)
        return
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        writer(draft, records)
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _jsonl(path: Path, records: list[Record]) -> None:
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    path.write_text(text, encoding="utf-8")


def _parquet(path: Path, records: list[Record]) -> None:
    pq.write_table(pa.Table.from_pylist(records, schema=SCHEMA), path)


_WRITERS = {"jsonl": _jsonl, "parquet": _parquet}


def _ids(part: Path) -> set[str]:
    if part.suffix == ".parquet":
        return set(pq.read_table(part, columns=["id"])["id"].to_pylist())
    with part.open(encoding="utf-8") as lines:
        return {json.loads(line)["id"] for line in lines}
