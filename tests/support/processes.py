"""Which processes of ours are there: what is started must also end."""

from __future__ import annotations

import time
from pathlib import Path


def children(pid: int) -> set[int]:
    """Process ids of the direct children of `pid`, all threads of it."""
    while True:
        lists = Path(f"/proc/{pid}/task").glob("*/children")
        try:
            return {int(child) for text in lists for child in text.read_text().split()}
        except (FileNotFoundError, ProcessLookupError):
            continue  # a thread has ended, and its children are now another one's


def is_gone(pid: int, within: float = 10.0) -> bool:
    """Whether the process ends (or is only a zombie) within so many seconds."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False
