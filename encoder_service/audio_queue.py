"""The waiting line in front of the encoder, counted in seconds of audio and cut into similar lengths."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Payload = TypeVar("Payload")


@dataclass(frozen=True)
class BatchLimits:
    """What one batch may be.

    Padded seconds are the longest item times the number of items. No item may be padded by more than
    `max_padding` of the longest, except that items of up to `short_seconds` always go together.
    """

    max_items: int = 64
    max_padded_seconds: float = 240.0
    max_padding: float = 0.3
    short_seconds: float = 1.0

    def allow(self, count: int, shortest: float, longest: float) -> bool:
        """Whether `count` items between these durations may form a batch. One item always may."""
        if count > self.max_items or (count > 1 and count * longest > self.max_padded_seconds):
            return False
        return longest <= max(self.short_seconds, shortest / (1.0 - self.max_padding))


@dataclass(eq=False)
class Waiting(Generic[Payload]):
    """One entry of the line: its payload, seconds of audio, and when it came (monotonic seconds)."""

    payload: Payload
    seconds: float
    since: float


@dataclass
class AudioQueue(Generic[Payload]):
    """First come, first served: the oldest entry is in the next batch, later ones join it if they fit."""

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

    def take(self) -> list[Waiting[Payload]]:
        """Remove and return the next batch, oldest first; empty when nobody waits."""
        batch: list[Waiting[Payload]] = []
        shortest = longest = 0.0
        for entry in self._line:
            if len(batch) == self.limits.max_items:
                break
            low = min(shortest, entry.seconds) if batch else entry.seconds
            high = max(longest, entry.seconds)
            if not batch or self.limits.allow(len(batch) + 1, low, high):
                batch.append(entry)
                shortest, longest = low, high
        for entry in batch:
            self.remove(entry)
        return batch
