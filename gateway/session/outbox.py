"""What a session still has to tell its client: in order, bounded, and again after a lost connection."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from gateway.session.events import (
    CheckpointReached,
    Ended,
    Failed,
    Final,
    Partial,
    Refined,
    SpeechEnded,
    Update,
)

_FULL = 1024
# Answers to checkpoints that a client may have missed: as many as may wait for theirs at a time.
_KEPT_CHECKPOINTS = 16


@dataclass(slots=True)
class Outbox:
    """Updates for one reader at a time. Finals, and the last answers to checkpoints, are kept for a client
    that comes back.

    A partial that nobody has read yet is replaced by the next one. `attach` begins a new reader and ends
    the one before.
    """

    max_finals: int
    _queue: deque[Update] = field(default_factory=deque)
    _finals: deque[Update] = field(default_factory=deque)
    _refined: dict[int, Update] = field(default_factory=dict)
    _checkpoints: deque[Update] = field(default_factory=lambda: deque(maxlen=_KEPT_CHECKPOINTS))
    _partial: Update | None = None
    _last: Update | None = None
    _reader: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, update: Update) -> None:
        event = update.event
        if isinstance(event, Partial):
            self._partial = update
            if self._queue and isinstance(self._queue[-1].event, Partial):
                self._queue.pop()
        elif isinstance(event, SpeechEnded):
            self._partial = None
        elif isinstance(event, Final):
            self._keep(update)
        elif isinstance(event, Refined):
            self._refined[event.index] = update
        elif isinstance(event, CheckpointReached):
            self._checkpoints.append(update)
        elif isinstance(event, Ended | Failed):
            self._last = update
        self._queue.append(update)
        self._changed.set()

    def _keep(self, update: Update) -> None:
        self._finals.append(update)
        if len(self._finals) > self.max_finals:
            dropped = self._finals.popleft().event
            assert isinstance(dropped, Final)
            self._refined.pop(dropped.index, None)

    @property
    def has_more(self) -> bool:
        """Whether something waits to be read."""
        return bool(self._queue)

    @property
    def full(self) -> bool:
        """The reader is far behind: take no more audio."""
        return len(self._queue) >= _FULL

    def attach(self, after: float | None = None) -> AsyncIterator[Update]:
        """Updates from now on; with `after`, first the finals that end later than that many seconds, then
        running speech and the answers to checkpoints that the reader before may not have told.
        """
        self._reader += 1
        if after is not None:
            self._queue = deque(self._replay(after))
        self._changed.set()
        return self._read(self._reader)

    def _replay(self, after: float) -> list[Update]:
        missed = [u for u in self._finals if isinstance(u.event, Final) and _is_missed(u.event, after)]
        refined = [self._refined[i] for i in sorted(self._refined)]
        # An answer says that all results before it have been sent: it follows them here too.
        partial = [self._partial] if self._partial is not None else []
        last = [self._last] if self._last is not None else []
        return [*missed, *refined, *partial, *self._checkpoints, *last]

    def detach(self) -> None:
        """Nobody reads: what is queued is either kept or out of date."""
        self._reader += 1
        self._queue.clear()
        self._changed.set()

    async def _read(self, reader: int) -> AsyncIterator[Update]:
        while reader == self._reader:
            while self._queue and reader == self._reader:
                update = self._queue.popleft()
                yield update
                if isinstance(update.event, Ended | Failed):
                    return
            self._changed.clear()
            if not self._queue and reader == self._reader:
                await self._changed.wait()


def _is_missed(final: Final, after: float) -> bool:
    """Whether a client that has the finals up to `after` seconds may lack this one.

    A final that was taken back is empty, and ends where the one before it does.
    """
    return final.segment.end > after or (final.segment.end == after and not final.segment.text)
