"""What only one process of a checkout may do at a time; the suite runs in several."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

_FOLDER = Path(__file__).parents[2] / "build"


@contextlib.contextmanager
def alone(task: str) -> Iterator[TextIO]:
    """Waits until no other process does the task. The file keeps what its last holder has written."""
    _FOLDER.mkdir(exist_ok=True)
    with (_FOLDER / f"{task}.lock").open("a+", encoding="utf-8") as note:
        fcntl.flock(note, fcntl.LOCK_EX)
        note.seek(0)
        yield note
