"""How throughput and memory grow: with segment length, recordings in flight and client processes.

A study of benchmarks.studies: it runs on tiers that are there. Every pass gets recordings of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from benchmarks import side_by_side, workload
from benchmarks.passes import Load, Results, Row, one_pass
from benchmarks.stack import Front, front

_USUAL = Load(in_flight=128, processes=4)
_SEGMENTS = (5.0, 15.0, 30.0, 60.0)
_CLIENTS = (1, 2, 4, 8)
_IN_FLIGHT = {1: 1 / 24, 8: 1 / 6, 32: 1 / 2, 128: 1.0, 368: 2.0}
"""Recordings at a time, and how much of the usual set is sent so."""


@dataclass(frozen=True, slots=True)
class Point:
    """One pass: which curve it belongs to, where on it, and how much of the usual set it takes."""

    curve: str
    at: float
    load: Load
    share: float = 1.0


def points() -> list[Point]:
    """Of all curves; the first one warms up."""
    clients = [Point("clients", number, replace(_USUAL, processes=number)) for number in _CLIENTS]
    segments = [Point("segment", length, replace(_USUAL, segment=length)) for length in _SEGMENTS]
    in_flight = [
        Point("in flight", number, replace(_USUAL, in_flight=number, processes=min(4, number)), share)
        for number, share in _IN_FLIGHT.items()
    ]
    return [Point("warm-up", 0, _USUAL, 1 / 4), *segments, *in_flight, *clients]


def study(setup: side_by_side.Setup, there: Front, results: Results) -> None:
    """Rows whose detail says `curve` and `at`."""
    wanted = points()
    works = [smaller(setup.work, point.share, 2000 + index) for index, point in enumerate(wanted)]
    folders = [setup.root / f"growth-{index}" for index in range(len(wanted))]
    workload.write_all(folders, works)
    with front(setup.services, there) as at:
        for point, folder in zip(wanted, folders, strict=True):
            name = f"{point.curve} {point.at:g}"
            results.attempt(name, partial(run, point, name, at, folder))
            at.check_alive()


def run(point: Point, name: str, at: Front, folder: Path) -> Row:
    """One point of a curve."""
    row = one_pass(name, point.load, at.servers, folder, at.watched)
    row.detail |= {"curve": point.curve, "at": point.at}
    return row


def smaller(work: workload.Workload, share: float, seed: int) -> workload.Workload:
    """So much of a workload, one file at least."""
    files = max(1, round(work.files * share))
    return replace(work, files=files, seconds=work.seconds * files / work.files, seed=seed)
