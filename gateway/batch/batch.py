"""One batch: its recordings, how far each is, and who waits for news of it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from tandem.errors import AlreadyExists, TandemError, WrongState
from tandem.results import RecognizeOptions


class Stage(StrEnum):
    """Of a recording."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class State(StrEnum):
    """Of a batch."""

    OPEN = "open"
    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"


@dataclass(slots=True, eq=False)
class BatchRecording:
    """`audio` exists until the recording is finished, `result` from when it succeeded. `size` is in bytes."""

    key: str
    options: RecognizeOptions
    audio: Path
    size: int
    result: Path
    stage: Stage = Stage.WAITING
    error: TandemError | None = None
    duration: float = 0.0
    recognized: float = 0.0
    """Seconds of its audio that are transcribed."""

    @property
    def is_finished(self) -> bool:
        return self.stage not in (Stage.WAITING, Stage.RUNNING)

    @property
    def fraction(self) -> float:
        """Done, 0 to 1."""
        if self.is_finished:
            return 1.0
        return min(1.0, self.recognized / self.duration) if self.duration else 0.0


@dataclass(slots=True, eq=False)
class Batch:
    """Times are of time.time(), seconds. `uploads` counts the calls that bring recordings now.

    `owner` is the name of the API key that it was made with, None where there are no keys.
    """

    batch_id: str
    owner: str | None
    folder: Path
    created: float = field(default_factory=time.time)
    touched: float = field(default_factory=time.monotonic)
    recordings: dict[str, BatchRecording] = field(default_factory=dict)
    waiting: deque[BatchRecording] = field(default_factory=deque)
    finished: list[BatchRecording] = field(default_factory=list)
    """With a result or an error, in the order in which they ended."""
    tasks: set[asyncio.Task[Stage]] = field(default_factory=set)
    result_bytes: int = 0
    uploads: int = 0
    is_open: bool = True
    is_cancelled: bool = False
    is_deleted: bool = False
    expires: float | None = None
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def state(self) -> State:
        if self.is_cancelled:
            return State.CANCELLED
        if self.is_open:
            return State.OPEN
        return State.DONE if len(self.finished) == len(self.recordings) else State.RUNNING

    @property
    def is_terminal(self) -> bool:
        return self.state in (State.DONE, State.CANCELLED)

    @property
    def progress_percent(self) -> int:
        """0 to 100 of the bytes uploaded so far; 100 only when done."""
        if self.state is State.DONE:
            return 100
        total = sum(item.size for item in self.recordings.values())
        done = sum(item.size * item.fraction for item in self.recordings.values())
        return min(99, int(100 * done / total)) if total else 0

    def check_open(self) -> None:
        if not self.is_open:
            raise WrongState(f"the batch is {self.state}, it takes no more recordings")

    def check_new(self, key: str) -> None:
        self.check_open()
        if key in self.recordings:
            raise AlreadyExists(f"the batch has a recording {key!r} already")

    def changed(self) -> None:
        """Wake those that wait for news."""
        self._news.set()
        self._news = asyncio.Event()

    async def news(self, timeout: float) -> None:
        """Return at the next change, or after so many seconds."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), timeout)
