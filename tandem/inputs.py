"""What may be transcribed in one call, one recording at a time: files, lists, wav.scp, jsonl, samples.

Nothing is read before its turn, so a list of any length costs the memory of the files in flight.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from tandem.errors import InvalidRequest
from tandem.waves import SAMPLE_RATE, to_wav

Input: TypeAlias = Any
"""A path, bytes of a file, a file opened in binary mode, samples (array or tensor, alone or with their rate),
or an iterable of these."""

_LISTS = (".scp", ".jsonl", ".parquet")


@dataclass(frozen=True, slots=True)
class Recording:
    """One recording: `key` is unique within its call, `name` is what errors call it."""

    key: str
    name: str
    source: Path | Callable[[], bytes]

    def load(self) -> bytes:
        """The recording in its container. Raises OSError for a file, TypeError or ValueError for samples."""
        return self.source.read_bytes() if isinstance(self.source, Path) else self.source()


def recordings(inputs: Input, sample_rate: int = SAMPLE_RATE) -> Iterator[Recording]:
    """Each recording of `inputs` in order; `sample_rate` is that of samples that come without one.

    Keys are those of a list file, or the file's name without extension, or sample_<i>; a key that occurs
    again gets _1, _2, and so on. An open file is read to its end at its turn. Raises InvalidRequest for a
    list file that makes no sense, with its line, and TypeError for what is no recording.
    """
    taken: set[str] = set()
    for recording in _all(inputs, sample_rate):
        yield replace(recording, key=_unique(recording.key, taken))


def _unique(key: str, taken: set[str]) -> str:
    names = itertools.chain([key], (f"{key}_{number}" for number in itertools.count(1)))
    free = next(name for name in names if name not in taken)
    taken.add(free)
    return free


def _all(inputs: Input, sample_rate: int) -> Iterator[Recording]:
    if not _is_many(inputs):
        yield from _one(inputs, 0, sample_rate)
        return
    for index, item in enumerate(inputs):
        yield from _one(item, index, sample_rate)


def _is_many(inputs: Input) -> bool:
    if isinstance(inputs, tuple) and len(inputs) == 2 and isinstance(inputs[1], int):
        return False
    single = isinstance(inputs, (str, Path, bytes, bytearray)) or hasattr(inputs, "ndim") or _is_file(inputs)
    return not single and isinstance(inputs, Iterable)


def _is_file(item: Input) -> bool:
    """An open file is iterable too: as its lines, which are no recordings."""
    return hasattr(item, "read")


def _one(item: Input, index: int, sample_rate: int) -> Iterator[Recording]:
    if isinstance(item, (str, Path)):
        path = Path(item)
        yield from _listed(path) if path.suffix in _LISTS else [Recording(path.stem, str(path), path)]
        return
    name = f"sample_{index}"
    if _is_file(item):
        yield _opened(item, name)
        return
    if isinstance(item, (bytes, bytearray)):
        data = bytes(item)
        yield Recording(name, name, lambda: data)
        return
    samples, rate = item if isinstance(item, tuple) else (item, sample_rate)
    if not hasattr(samples, "ndim"):
        raise TypeError(f"{name}: cannot transcribe a {type(samples).__name__}")
    yield Recording(name, name, lambda: to_wav(samples, rate))


def _opened(file: Input, unnamed: str) -> Recording:
    """All of it, now: the caller may close the file before its turn to be sent."""
    name = getattr(file, "name", None)
    # A file without a path has a number here, or nothing.
    path = Path(name) if isinstance(name, str) and name else None
    data = file.read()
    if not isinstance(data, (bytes, bytearray)):
        raise TypeError(f"{path or unnamed}: not opened in binary mode")
    content = bytes(data)
    return Recording(path.stem if path else unnamed, str(path or unnamed), lambda: content)


def _listed(file: Path) -> Iterator[Recording]:
    rows = _parquet_rows(file) if file.suffix == ".parquet" else _lines(file)
    for key, source in rows:
        path = _beside(Path(source), file)
        yield Recording(key or path.stem, source, path)


def _lines(file: Path) -> Iterator[tuple[str | None, str]]:
    parse = _scp_line if file.suffix == ".scp" else _jsonl_line
    for number, line in enumerate(_decoded(file), 1):
        if not line.strip():
            continue
        try:
            yield parse(line.strip())
        except ValueError as error:
            raise InvalidRequest(f"{file} line {number}: {error}") from error


def _decoded(file: Path) -> Iterator[str]:
    with file.open(encoding="utf-8") as lines:
        try:
            yield from lines
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"{file} is not UTF-8") from error


def _parquet_rows(file: Path) -> Iterator[tuple[str | None, str]]:
    """Columns source and, where there is one, key."""
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise InvalidRequest(f"{file}: needs pyarrow (pip install 'tandem-asr[bulk]')") from error
    try:
        table = pq.ParquetFile(file)
    except (ValueError, OSError) as error:
        raise InvalidRequest(f"{file} is no Parquet file: {error}") from error
    columns = [name for name in ("key", "source") if name in table.schema_arrow.names]
    if "source" not in columns:
        raise InvalidRequest(f'{file} has no column "source"')
    for batch in table.iter_batches(columns=columns):
        for row in batch.to_pylist():
            if not isinstance(row["source"], str):
                raise InvalidRequest(f"{file}: a source is {row['source']!r}, needs the path of a file")
            key = row.get("key")
            yield (str(key) if key is not None else None), row["source"]


def _beside(path: Path, file: Path) -> Path:
    """Relative paths start at the working directory, or, where there is no such file, at the list's."""
    return path if path.is_absolute() or path.exists() else file.parent / path


def _scp_line(line: str) -> tuple[str | None, str]:
    if line.endswith("|"):
        raise ValueError("commands are not run, give the path of a file")
    key, _, path = line.partition("\t") if "\t" in line else line.partition(" ")
    return (key, path.strip()) if path.strip() else (None, key)


def _jsonl_line(line: str) -> tuple[str | None, str]:
    record = json.loads(line)
    source = record.get("source") if isinstance(record, dict) else None
    if not isinstance(source, str):
        raise ValueError('needs {"source": PATH}')
    key = record.get("key")
    return (str(key) if key is not None else None), source
