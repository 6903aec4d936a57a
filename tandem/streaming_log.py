"""What a live client has sent and the server has not confirmed: the memory that makes resuming lossless."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

from tandem.asr.v1 import asr_pb2 as pb
from tandem.rpc.durations import duration, seconds

# Audio that may wait for the server, sent or not.
_MAX_AHEAD = 60.0
_PIECE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class _Entry:
    """A message and the seconds of the stream [start, end) it covers; commands cover none."""

    message: pb.StreamingRecognizeRequest
    start: float
    end: float


class SentLog:
    """Messages in order with their positions. `bytes_per_second` 0: positions are unknown, no resuming."""

    def __init__(self, bytes_per_second: int) -> None:
        self._rate = bytes_per_second
        self._entries: deque[_Entry] = deque()
        self._dropped = 0
        self._end = 0.0
        self._received = 0.0
        self._closed = False
        self._changed = asyncio.Event()

    @property
    def replayable(self) -> bool:
        """Whether audio can be sent again from a position."""
        return self._rate > 0

    def add(self, message: pb.StreamingRecognizeRequest) -> None:
        """Queue one message; long audio is cut into pieces."""
        audio = message.audio
        if len(audio) > _PIECE_BYTES:
            for first in range(0, len(audio), _PIECE_BYTES):
                self.add(pb.StreamingRecognizeRequest(audio=audio[first : first + _PIECE_BYTES]))
            return
        start = self._end
        if message.HasField("silence"):
            self._end += seconds(message.silence)
        elif self._rate:
            self._end += len(audio) / self._rate
        self._entries.append(_Entry(message, start, self._end))
        self._changed.set()

    def end(self) -> None:
        """Nothing follows."""
        self._closed = True
        self._changed.set()

    def received(self, position: float) -> None:
        """The server has the audio up to `position` seconds."""
        self._received = max(self._received, position)
        while self._rate and self._entries and self._entries[0].end < self._received:
            self._entries.popleft()
            self._dropped += 1
        self._changed.set()

    async def room(self) -> None:
        """Wait until the server is less than a minute of audio behind."""
        while self._rate and self._end - self._received > _MAX_AHEAD:
            self._changed.clear()
            await self._changed.wait()

    async def from_position(self, position: float) -> AsyncIterator[pb.StreamingRecognizeRequest]:
        """Messages from `position` seconds on, the first cut to it, until the end."""
        at = self._dropped
        while True:
            at = max(at, self._dropped)
            while at - self._dropped < len(self._entries):
                entry = self._entries[at - self._dropped]
                at += 1
                message = self._cut(entry, position)
                if message is not None:
                    yield message
                at = max(at, self._dropped)
            if self._closed:
                return
            self._changed.clear()
            if at - self._dropped >= len(self._entries) and not self._closed:
                await self._changed.wait()
            if not self._rate:
                self._forget(at)

    def _forget(self, at: int) -> None:
        while self._dropped < at and self._entries:
            self._entries.popleft()
            self._dropped += 1

    def _cut(self, entry: _Entry, position: float) -> pb.StreamingRecognizeRequest | None:
        """The part of a message that the server does not have."""
        if entry.start >= position or entry.start == entry.end:
            return entry.message
        if entry.end <= position:
            return None
        if entry.message.HasField("silence"):
            return pb.StreamingRecognizeRequest(silence=duration(entry.end - position))
        width = 2 if self._rate % 2 == 0 else 1
        skip = round((position - entry.start) * self._rate / width) * width
        return pb.StreamingRecognizeRequest(audio=entry.message.audio[skip:])
