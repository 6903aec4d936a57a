"""The bar of `tandem transcribe`: files done and seconds of audio per second, on a terminal only."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


class Meter:
    """A progress bar on standard error that goes away at the end; the text it shows is in `speed`.

    Standard output stays what it is when it is a file or a pipe; on a terminal it scrolls above the bar.
    """

    def __init__(self, total: int) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("transcribing"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
            redirect_stdout=sys.stdout.isatty(),
        )
        self._task = self._progress.add_task("", total=total, speed="")
        self._started = time.monotonic()
        self._audio = 0.0

    def advance(self, seconds: float) -> None:
        """One more file is done; it had so many seconds of audio."""
        self._audio += seconds
        self._progress.update(self._task, advance=1, speed=self.speed)

    @property
    def speed(self) -> str:
        """For example "123.4 s/s": audio per time since the start."""
        return f"{self._audio / max(time.monotonic() - self._started, 1e-9):.1f} s/s"

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
