"""What all recordings together may have outstanding at the tiers: enough to keep them busy, and no more.

Waiting here costs nothing, while a segment that a full queue refuses has been sent for nothing. Live audio
does not wait here: the encoders' queues keep room for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable

from prometheus_client import Histogram

from tandem.rpc.metrics import LATENCY

_ADMISSION = Histogram(
    "tandem_gateway_admission_seconds",
    "What a recording's segment waited for room at the tiers before it was sent.",
    buckets=LATENCY,
)
# Of the encoders' queues. The rest is for live audio.
_SHARE = 0.75


class SegmentGate:
    """First come, first served. Used from one event loop.

    max_segments: sent and not yet answered. capacity: seconds of audio that the encoders' queues hold.
    """

    def __init__(self, max_segments: int, capacity: Callable[[], float]) -> None:
        self._places = asyncio.Semaphore(max_segments)
        self._capacity = capacity
        self._inside = 0
        self._unencoded = 0.0
        self._waiting: deque[tuple[float, asyncio.Future[None]]] = deque()

    @contextlib.asynccontextmanager
    async def segment(self, seconds: float) -> AsyncIterator[Callable[[], None]]:
        """A place for one segment; call what it gives when the segment is encoded, or leave the block."""
        wanted = time.perf_counter()
        async with self._places:
            await self._enter(seconds)
            _ADMISSION.observe(time.perf_counter() - wanted)
            inside = True

            def encoded() -> None:
                nonlocal inside
                if inside:
                    inside = False
                    self._leave(seconds)

            try:
                yield encoded
            finally:
                encoded()

    async def _enter(self, seconds: float) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((seconds, turn))
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._admit()
            else:
                self._leave(seconds)
            raise

    def _leave(self, seconds: float) -> None:
        self._inside -= 1
        # Sums of floats do not come back to what they were.
        self._unencoded = self._unencoded - seconds if self._inside else 0.0
        self._admit()

    def _admit(self) -> None:
        """Let in whoever has its turn. Turns of callers that left are cancelled before those run again."""
        while self._waiting:
            seconds, turn = self._waiting[0]
            if not turn.cancelled():
                if not self._fits(seconds):
                    return
                self._inside += 1
                self._unencoded += seconds
                turn.set_result(None)
            self._waiting.popleft()

    def _fits(self, seconds: float) -> bool:
        """One segment always does when there is no other, so that none waits for encoders that are gone."""
        return not self._inside or self._unencoded + seconds <= _SHARE * self._capacity()
