"""Room on disk for audio that waits: uploads slow down when it is full, and refused when that cannot end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tandem.errors import Overloaded

_RETRY_AFTER = 30.0


class SpoolSpace:
    """Counts bytes against `limit`. `will_free` tells whether running work is going to give some back."""

    def __init__(self, limit: int, will_free: Callable[[], bool]) -> None:
        self.used = 0
        self._limit = limit
        self._will_free = will_free
        self._changed = asyncio.Event()

    async def take(self, size: int) -> None:
        """Wait for room. Raises Overloaded when nothing that runs would make any."""
        while self.used + size > self._limit:
            if not self._will_free():
                raise Overloaded("no room for more audio", retry_after=_RETRY_AFTER)
            await self._changed.wait()
        self.used += size

    def add(self, size: int) -> None:
        """Count what must be kept in any case."""
        self.used += size

    def give_back(self, size: int) -> None:
        self.used -= size
        self.changed()

    def changed(self) -> None:
        """Let those that wait look again: there is room, or there will be none."""
        self._changed.set()
        self._changed = asyncio.Event()
