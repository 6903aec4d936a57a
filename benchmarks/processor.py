"""Processor time of running processes (Linux): what work costs, whatever else the machine does."""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


def seconds(processes: Iterable[int]) -> float:
    """User and system time that these processes have used; one that has ended counts nothing."""
    return sum(_seconds(Path("/proc", str(pid))) for pid in processes)


def below(process: int) -> Iterator[int]:
    """Every process that this one has started, directly or not, and that runs now."""
    children = defaultdict(list)
    for folder in Path("/proc").glob("[0-9]*"):
        if fields := _fields(folder):
            children[int(fields[1])].append(int(folder.name))
    waiting = children[process]
    while waiting:
        child = waiting.pop()
        yield child
        waiting += children[child]


@dataclass(frozen=True, slots=True)
class Thread:
    """As the kernel numbers them; a process's first thread has the process's number."""

    process: int
    number: int


def threads(processes: Iterable[int]) -> dict[Thread, float]:
    """Seconds of processor time of each thread of these processes: one thread alone has at most one core."""
    return {
        Thread(pid, int(folder.name)): _seconds(folder)
        for pid in processes
        for folder in Path("/proc", str(pid), "task").glob("*")
    }


def resident_mib(processes: Iterable[int]) -> float:
    """Memory of these processes together, pages that they share counted for each."""
    pages = 0
    for process in processes:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            pages += int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def kind(process: int) -> str:
    """What a child process is for, by its command line: "engine", "worker", "tracker" or "child"."""
    words = {
        "EngineCore": "engine",
        "VLLM::Worker": "rank",
        "resource_tracker": "tracker",
        "spawn_main": "worker",
    }
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        line = Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace")
        return next((name for word, name in words.items() if word in line), "child")
    return "child"


def _seconds(folder: Path) -> float:
    """Of a process or a thread, by its folder in /proc; 0 when it has ended."""
    fields = _fields(folder)
    return (int(fields[11]) + int(fields[12])) / _TICK if fields else 0.0


def _fields(folder: Path) -> list[str]:
    """What /proc says after the name: state, parent, and so on; nothing when it has ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return []
