"""Processor time of running processes (Linux): what work costs, whatever else the machine does."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path


def seconds(processes: Iterable[int]) -> float:
    """User and system time that these processes have used; one that has ended counts nothing."""
    ticks = 0
    for pid in processes:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def below(process: int) -> Iterator[int]:
    """Every process that this one has started, directly or not, and that runs now."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for children in Path(f"/proc/{process}").glob("task/*/children"):
            for child in map(int, children.read_text(encoding="ascii").split()):
                yield child
                yield from below(child)
