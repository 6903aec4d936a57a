"""What processes cost: seconds of processor time, and memory on GPUs (Linux)."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path


def tree(root: int) -> Iterator[int]:
    """A process and all below it that run now."""
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        yield pid
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                waiting += map(int, children.read_text().split())


def processor_seconds(pid: int) -> float:
    """User and system time of one process and of its children that have ended; 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    ticks = map(int, fields.rpartition(")")[2].split()[11:15])
    return sum(ticks) / os.sysconf("SC_CLK_TCK")


def gpu_mib() -> dict[int, int]:
    """MiB that each process holds on all GPUs; empty where there is no NVIDIA driver."""
    command = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    except (FileNotFoundError, subprocess.CalledProcessError):
        return {}
    used: dict[int, int] = {}
    for line in lines:
        pid, _, mib = line.partition(",")
        if mib.strip().isdigit():
            used[int(pid)] = used.get(int(pid), 0) + int(mib)
    return used
