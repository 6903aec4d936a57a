"""Equal machines on one: processes that get the same processor time in each round, however busy it is."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SLICE_SECONDS = 0.02
_POLL_SECONDS = 0.002
_IDLE_POLLS = 4


@dataclass(slots=True)
class Rounds:
    """`count` rounds have passed in which at least one machine had something to do: what they call time."""

    count: int = 0


@contextlib.contextmanager
def rounds(machines: Mapping[int, float], around: Sequence[int] = ()) -> Iterator[Rounds]:
    """Hold processes to equal progress; the values are their speeds, 1.0 that of a whole machine.

    In a round each may use its share of a slice of processor time and is stopped until the next one; what it
    used too much, because it was stopped late, is missing then. The round ends when each has used its share
    or has nothing to do, and the processes `around`, this one included, have nothing to do either: these are
    as fast as need be. A process may die meanwhile.
    """
    passed, over = Rounds(), threading.Event()

    def work() -> None:
        allowed = {pid: _processor_seconds(pid) for pid in machines}
        while not over.is_set():
            for pid, speed in machines.items():
                allowed[pid] = min(allowed[pid], _processor_seconds(pid)) + SLICE_SECONDS * speed
            passed.count += _round(allowed, [*around, os.getpid()], over)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield passed
    finally:
        over.set()
        thread.join()
        for pid in machines:
            _signal(pid, signal.SIGCONT)


def _round(allowed: Mapping[int, float], around: Sequence[int], over: threading.Event) -> bool:
    """Let machines work until their processor time is what is allowed; whether one has used all of it."""
    running = {pid for pid, seconds in allowed.items() if _processor_seconds(pid) < seconds}
    idle_polls = 0
    for pid in running:
        _signal(pid, signal.SIGCONT)
    while running and idle_polls < _IDLE_POLLS and not over.is_set():
        time.sleep(_POLL_SECONDS)
        for pid in [pid for pid in running if _processor_seconds(pid) >= allowed[pid]]:
            _signal(pid, signal.SIGSTOP)
            running.remove(pid)
        idle_polls = idle_polls + 1 if all(map(_sleeps, [*running, *around])) else 0
    for pid in running:
        _signal(pid, signal.SIGSTOP)
    return len(running) < len(allowed)


def _processor_seconds(pid: int) -> float:
    return sum(int(text.split()[0]) for text in _of_threads(pid, "schedstat")) / 1e9


def _sleeps(pid: int) -> bool:
    """Whether no thread of the process, but the one that asks, wants a processor."""
    return all(text.rpartition(")")[2].split()[0] in "SZ" for text in _of_threads(pid, "stat"))


def _of_threads(pid: int, name: str) -> Iterator[str]:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for folder in Path(f"/proc/{pid}/task").iterdir():
            if folder.name == str(threading.get_native_id()):
                continue
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                yield (folder / name).read_text(encoding="utf-8")


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
