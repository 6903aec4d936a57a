"""Counts requests and refuses early: what would only wait is sent away with a time to come back."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from tandem.errors import Overloaded

RATE_WINDOW_SECONDS = 10.0
SMOOTHING = 0.1
MIN_RETRY_SECONDS = 0.1
MAX_RETRY_SECONDS = 30.0


class Admission:
    """At most `running + waiting` requests at a time. Used from the event loop only."""

    def __init__(self, running: int, waiting: int) -> None:
        self.max_waiting = waiting
        self._running = running
        self._held = 0
        self._mean_seconds = 1.0

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Hold a place for the block. Raises Overloaded with a retry hint when none is left."""
        if self._held >= self._running + self.max_waiting:
            raise Overloaded(f"{self._held} requests are running or waiting", retry_after=self._retry_after())
        self._held += 1
        started = time.monotonic()
        try:
            yield
            self._mean_seconds += SMOOTHING * (time.monotonic() - started - self._mean_seconds)
        finally:
            self._held -= 1

    def _retry_after(self) -> float:
        """About when the next of the running requests ends."""
        return min(max(self._mean_seconds / self._running, MIN_RETRY_SECONDS), MAX_RETRY_SECONDS)


class TokenRate:
    """Tokens per second over the last ten seconds. Counted in one thread, read in any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: deque[tuple[float, int]] = deque()
        self._total = 0

    def add(self, tokens: int) -> None:
        now = time.monotonic()
        with self._lock:
            # One entry per tenth of a second keeps the queue short at any rate.
            if self._counts and now - self._counts[-1][0] < 0.1:
                begun, counted = self._counts.pop()
                self._counts.append((begun, counted + tokens))
            else:
                self._counts.append((now, tokens))
            self._total += tokens

    def per_second(self) -> float:
        horizon = time.monotonic() - RATE_WINDOW_SECONDS
        with self._lock:
            while self._counts and self._counts[0][0] < horizon:
                self._total -= self._counts.popleft()[1]
            return self._total / RATE_WINDOW_SECONDS
