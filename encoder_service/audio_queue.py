"""The waiting line in front of the encoder, counted in seconds of audio and cut into batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Payload = TypeVar("Payload")


@dataclass(frozen=True)
class BatchLimits:
    """What one batch may be.

    At most `max_items` segments and `max_seconds` of audio: a batch costs its frames, whatever lengths they
    come in. Where a batch takes long, short segments should not wait for long ones: none may be shorter than
    the longest by more than the share `max_spread`, except that those of up to `short_seconds` always go
    together.
    """

    max_items: int = 64
    max_seconds: float = 240.0
    max_spread: float = 0.3
    short_seconds: float = 1.0

    def allow(self, count: int, seconds: float, shortest: float, longest: float) -> bool:
        """Whether `count` items of `seconds` in all, between these durations, may form a batch.

        One item always may.
        """
        if count > self.max_items or (count > 1 and seconds > self.max_seconds):
            return False
        return longest <= self.short_seconds or shortest >= longest * (1.0 - self.max_spread)


@dataclass(eq=False)
class Waiting(Generic[Payload]):
    """One entry of the line: its payload, seconds of audio, and when it came (monotonic seconds)."""

    payload: Payload
    seconds: float
    since: float
    urgent: bool = False


@dataclass
class AudioQueue(Generic[Payload]):
    """First come, first served: the oldest entry is in the next batch, later ones join it if they fit.

    Urgent entries go before all others.
    """

    limits: BatchLimits
    seconds: float = 0.0
    _line: dict[Waiting[Payload], None] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._line)

    def __iter__(self) -> Iterator[Waiting[Payload]]:
        return iter(tuple(self._line))

    def push(self, entry: Waiting[Payload]) -> None:
        self._line[entry] = None
        self.seconds += entry.seconds

    def remove(self, entry: Waiting[Payload]) -> bool:
        """Take one entry out of the line; False when it has left already."""
        if entry not in self._line:
            return False
        del self._line[entry]
        self.seconds = self.seconds - entry.seconds if self._line else 0.0
        return True

    @property
    def oldest(self) -> float:
        """When the first in the line came; there must be one."""
        return next(iter(self._line)).since

    @property
    def worth_a_batch(self) -> bool:
        """Whether what waits would fill half a batch."""
        limits = self.limits
        return 2 * self.seconds >= limits.max_seconds or 2 * len(self._line) >= limits.max_items

    def take(self) -> list[Waiting[Payload]]:
        """Remove and return the next batch, urgent ones first, then by age; empty when nobody waits."""
        batch: list[Waiting[Payload]] = []
        seconds = shortest = longest = 0.0
        for entry in sorted(self._line, key=lambda entry: not entry.urgent):
            if len(batch) == self.limits.max_items:
                break
            low = min(shortest, entry.seconds) if batch else entry.seconds
            high = max(longest, entry.seconds)
            if not batch or self.limits.allow(len(batch) + 1, seconds + entry.seconds, low, high):
                batch.append(entry)
                seconds, shortest, longest = seconds + entry.seconds, low, high
        for entry in batch:
            self.remove(entry)
        return batch
