"""The Ray Data job: blocks of a manifest to actors, each a client of the server, each block one part.

An actor or machine that dies costs its current block, which Ray gives to another; a driver that dies costs
what was not yet written, and the next run goes on from there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import ray.data

from tandem.access import Access
from tandem.bulk.parts import Entry, Parts, failure, result
from tandem.errors import InvalidRequest
from tandem.inputs import Recording
from tandem.many import ManyOptions, transcribe_many
from tandem.patience import Patience
from tandem.results import RecognizeOptions

PATIENCE = Patience(attempts=20, first_delay=0.5, max_delay=30.0)
"""An overloaded or restarting server is waited for: about eight minutes without any advice of its own."""
_ACTOR_CPUS = 0.5
"""An actor mostly waits for the server."""

Batch = dict[str, "np.ndarray[Any, Any]"]


@dataclass(frozen=True, slots=True)
class BulkJob:
    """What is asked of which server, and where results go (a folder that all machines share).

    At most `actors` times `in_flight` recordings are with the server at the same time; `part_size`
    recordings make one part, which is what a crash may cost.
    """

    server: str
    parts: Parts
    recognize: RecognizeOptions = field(default_factory=RecognizeOptions)
    access: Access | None = None
    actors: int = 2
    in_flight: int = 8
    part_size: int = 64
    timeout: float | None = None
    patience: Patience = PATIENCE


@dataclass(slots=True)
class BulkReport:
    """Recordings done and failed in this run, and done before it; `audio` in seconds, of those done."""

    skipped: int = 0
    done: int = 0
    failed: int = 0
    audio: float = 0.0


class Transcriber:
    """An actor of the job."""

    def __init__(self, job: BulkJob) -> None:
        self._job = job

    def __call__(self, batch: Batch) -> Batch:
        """A block of entries (columns id, key, file, path) to one row: done, failed, audio."""
        entries = [Entry(**dict(zip(batch, row, strict=True))) for row in zip(*batch.values(), strict=True)]
        job = self._job
        many = ManyOptions(
            job.recognize, job.in_flight, job.timeout, access=job.access, patience=job.patience
        )
        items = (Recording(entry.key, entry.file, Path(entry.path)) for entry in entries)
        done, failed = [], []
        for entry, outcome in zip(entries, transcribe_many(job.server, items, many), strict=True):
            if outcome.transcript is not None:
                done.append(result(entry, outcome.transcript))
            elif outcome.error is not None:
                failed.append(failure(entry, outcome.error))
        job.parts.write(entries, done, failed)
        audio = sum(record["duration"] for record in done)
        return {"done": np.array([len(done)]), "failed": np.array([len(failed)]), "audio": np.array([audio])}


def run_bulk(
    manifest: Iterable[Recording],
    job: BulkJob,
    on_progress: Callable[[BulkReport, int], None] = lambda report, total: None,
) -> BulkReport:
    """Transcribe what is not done yet, on the Ray cluster that this process is connected to.

    `on_progress` gets the report so far and the number of recordings of this run, after each part.
    Raises InvalidRequest for recordings that are no files, and what Ray raises when the cluster is lost.
    """
    finished = job.parts.begin()
    entries = [_entry(item, job.recognize) for item in manifest]
    todo = [entry for entry in entries if entry.id not in finished]
    report = BulkReport(skipped=len(entries) - len(todo))
    for row in _rows(todo, job):
        report.done += row["done"]
        report.failed += row["failed"]
        report.audio += row["audio"]
        on_progress(report, len(todo))
    return report


def _entry(item: Recording, options: RecognizeOptions) -> Entry:
    if not isinstance(item.source, Path):
        raise InvalidRequest(f"{item.name}: a bulk job takes files")
    return Entry.of(item.key, item.name, item.source, options)


def _rows(todo: list[Entry], job: BulkJob) -> Iterator[dict[str, Any]]:
    """One row for each part, as they are done."""
    if not todo:
        return
    columns = [{"id": e.id, "key": e.key, "file": e.file, "path": e.path} for e in todo]
    blocks = math.ceil(len(todo) / job.part_size)
    ray.data.DataContext.get_current().enable_progress_bars = False
    pool = ray.data.ActorPoolStrategy(size=min(job.actors, blocks))
    yield from (
        ray.data.from_items(columns, override_num_blocks=blocks)
        .map_batches(
            Transcriber, fn_constructor_args=(job,), batch_size=None, compute=pool, num_cpus=_ACTOR_CPUS
        )
        .iter_rows()
    )
