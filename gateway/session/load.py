"""How busy the decoder tier and this gateway are: partials give way before finals become late."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gateway.session.jobs import JobKind

_SMOOTHING = 0.2
_MAX_STRETCH = 8.0
_LAG_TARGET = 0.05


@dataclass(slots=True)
class Load:
    """Language-model decodes outstanding in all sessions of this gateway, and how late its event loop is.

    At most `limit` partials run at a time. While finals take longer than `target` seconds on average, one
    at most, and none beside a final.
    """

    limit: int
    clock: Callable[[], float]
    target: float = 0.3
    partials: int = 0
    finals: int = 0
    final_seconds: float = 0.0
    lag_seconds: float = 0.0
    """What the event loop does, it does so much later than it is due; recent average."""

    def spare(self) -> bool:
        """Whether one more partial may start."""
        if self.final_seconds <= self.target:
            return self.partials < self.limit
        return self.partials == 0 and self.finals == 0

    def stretch(self) -> float:
        """How much longer than planned to wait between CTC passes: they share machines with finals."""
        late = max(self.final_seconds / self.target, self.lag_seconds / _LAG_TARGET)
        return min(_MAX_STRETCH, max(1.0, late))

    def lagged(self, seconds: float) -> None:
        """Something was done so much later than it was due."""
        self.lag_seconds += _SMOOTHING * (seconds - self.lag_seconds)

    @contextlib.contextmanager
    def decoding(self, kind: JobKind) -> Iterator[None]:
        """A decode is out until its text is there, or it is over in another way."""
        begun = self.clock()
        self.partials += kind is JobKind.PARTIAL
        self.finals += kind is JobKind.FINAL
        try:
            yield
        finally:
            self.partials -= kind is JobKind.PARTIAL
            if kind is JobKind.FINAL:
                self.finals -= 1
                self.final_seconds += _SMOOTHING * (self.clock() - begun - self.final_seconds)
