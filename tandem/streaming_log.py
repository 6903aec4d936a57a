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
_SERVER_RATE = 16_000
"""Samples a second that the server counts in: it makes whole ones of each message of silence."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A message and the seconds of the stream [start, end) it covers; commands cover none."""

    message: pb.StreamingRecognizeRequest
    start: float
    end: float


class SentLog:
    """Messages in order with their positions. `bytes_per_second` 0: positions are unknown, no resuming.

    `width` is the bytes of a sample. Messages hold whole ones, whatever is added: a session that is taken up
    again begins with a whole one, and the server counts whole ones.
    """

    def __init__(self, bytes_per_second: int, width: int = 2) -> None:
        self._rate = bytes_per_second
        self._width = width if bytes_per_second else 1
        self._part = b""
        self._audio_bytes = self._silence_samples = 0
        self._entries: deque[_Entry] = deque()
        self._dropped = 0
        self._end = 0.0
        self._received = 0.0
        self._closed = self._over = False
        self._changed = asyncio.Event()

    @property
    def replayable(self) -> bool:
        """Whether audio can be sent again from a position."""
        return self._rate > 0

    def add(self, message: pb.StreamingRecognizeRequest) -> None:
        """Queue one message; long audio is cut into pieces. Does nothing once the session is over."""
        if self._over:
            return
        if message.HasField("audio"):
            audio = self._whole_samples(message.audio)
            for first in range(0, max(len(audio), 1), _PIECE_BYTES):
                piece = audio[first : first + _PIECE_BYTES]
                self._audio_bytes += len(piece)
                self._append(pb.StreamingRecognizeRequest(audio=piece))
            return
        if message.HasField("silence"):
            self._silence_samples += round(seconds(message.silence) * _SERVER_RATE)
        self._append(message)

    def _whole_samples(self, audio: bytes) -> bytes:
        """Audio with the part of a sample that was left before; what follows the last whole one is left."""
        audio = self._part + audio
        whole = len(audio) // self._width * self._width
        self._part = audio[whole:]
        return audio[:whole]

    def _append(self, message: pb.StreamingRecognizeRequest) -> None:
        # From counts: a sum of seconds would drift from the server's over the hours.
        audio = self._audio_bytes / self._rate if self._rate else 0.0
        start, self._end = self._end, audio + self._silence_samples / _SERVER_RATE
        self._entries.append(_Entry(message, start, self._end))
        self._changed.set()

    def end(self) -> None:
        """Nothing follows."""
        self._closed = True
        self._changed.set()

    def abandon(self) -> None:
        """The session is over: what waits or comes yet is dropped, and nobody waits for room."""
        self._over = True
        self._dropped += len(self._entries)
        self._entries.clear()
        self.end()

    def received(self, position: float) -> None:
        """The server has the audio up to `position` seconds."""
        self._received = max(self._received, position)
        while self._rate and self._entries and self._entries[0].end < self._received:
            self._entries.popleft()
            self._dropped += 1
        self._changed.set()

    async def room(self) -> None:
        """Wait until the server is less than a minute of audio behind, or the session is over."""
        while self._rate and not self._over and self._end - self._received > _MAX_AHEAD:
            self._changed.clear()
            await self._changed.wait()
        if self._over:
            # Whoever goes on sending without a wait of their own must leave a turn to those who end it.
            await asyncio.sleep(0)

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
        skip = round((position - entry.start) * self._rate / self._width) * self._width
        return pb.StreamingRecognizeRequest(audio=entry.message.audio[skip:])
