"""Live audio as it arrives in any format to int16 at 16 kHz, piece by piece, with no wait for more.

PyAV is imported for Opus and other rates only.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gateway.audio.g711 import decode_alaw, decode_mulaw
from gateway.audio.types import SAMPLE_RATE, RawEncoding
from tandem.errors import InvalidAudio

if TYPE_CHECKING:
    from av import AudioResampler
    from av.audio.frame import AudioFrame

Pcm = NDArray[np.int16]

MAX_MESSAGE_BYTES = 16 * 2**20
"""Of live audio in one message: minutes of it."""
_MIN_RATE, _MAX_RATE = 8_000, 96_000
_PIECE_BYTES = 64 * 1024
_AHEAD_SECONDS = 10
_OPUS_OPTIONS = {
    "format_whitelist": "ogg,matroska,webm",
    "codec_whitelist": "opus,libopus",
    "protocol_whitelist": "none",
    "probesize": "4096",
    "analyzeduration": "0",
}


class LiveDecoder(Protocol):
    """One stream's decoder."""

    def push(self, data: bytes) -> AsyncGenerator[Pcm, None]:
        """Adds bytes; what became known, int16 [n] at 16 kHz, in pieces whatever the size of the message.

        Raises InvalidAudio.
        """

    def finish(self) -> AsyncGenerator[Pcm, None]:
        """The last samples, likewise."""

    def close(self) -> None:
        """Frees what the decoder holds; finish() need not have been called."""


class Resampler:
    """int16 [n] mono at `rate` to 16 kHz, with state across pieces."""

    def __init__(self, rate: int) -> None:
        if not _MIN_RATE <= rate <= _MAX_RATE:
            raise ValueError(f"sample rate {rate} is not in {_MIN_RATE}..{_MAX_RATE}")
        self._rate = rate
        self._av = _resampler() if rate != SAMPLE_RATE else None

    def push(self, samples: Pcm) -> Pcm:
        if self._av is None or not len(samples):
            return samples
        from av.audio.frame import AudioFrame

        frame = AudioFrame.from_ndarray(np.ascontiguousarray(samples)[None], format="s16", layout="mono")
        frame.sample_rate = self._rate
        return _joined(self._av.resample(frame))

    def finish(self) -> Pcm:
        return _joined(self._av.resample(None)) if self._av is not None else _joined([])


def _resampler() -> AudioResampler:
    import av

    return av.AudioResampler("s16", "mono", SAMPLE_RATE)


def _joined(frames: list[AudioFrame]) -> Pcm:
    parts = [np.asarray(frame.to_ndarray()[0], dtype=np.int16) for frame in frames]
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int16)


class RawDecoder:
    """Samples without a container; a sample split between two messages is put together again."""

    def __init__(self, encoding: RawEncoding, rate: int) -> None:
        self._encoding = encoding
        self._resampler = Resampler(rate)
        self._rest = b""

    async def push(self, data: bytes) -> AsyncGenerator[Pcm, None]:
        # Whoever hears a piece gives others their turn before the next one is decoded.
        for first in range(0, len(data), _PIECE_BYTES):
            yield self._resampler.push(self._samples(data[first : first + _PIECE_BYTES]))

    async def finish(self) -> AsyncGenerator[Pcm, None]:
        yield self._resampler.finish()

    def close(self) -> None:
        return

    def _samples(self, data: bytes) -> Pcm:
        if self._encoding is RawEncoding.S16LE:
            data = self._rest + data
            self._rest = data[len(data) // 2 * 2 :]
            return np.frombuffer(data, dtype="<i2", count=len(data) // 2).astype(np.int16, copy=False)
        decode = decode_mulaw if self._encoding is RawEncoding.MULAW else decode_alaw
        return np.asarray(np.rint(decode(data) * 32768).clip(-32768, 32767), dtype=np.int16)


class _Pipe:
    """Bytes to a decoding thread and frames back; each side waits for the other.

    The thread decodes no more than _AHEAD_SECONDS before somebody takes them: a few bytes of Opus may be
    hours of silence.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._data = bytearray()
        self._frames: list[AudioFrame] = []
        self._samples = 0
        self._ended = self._dropped = self._done = self._hungry = False

    # For the decoding thread

    def read(self, size: int) -> bytes:
        """Up to `size` bytes, none at the end."""
        with self._changed:
            while not (self._data or self._ended or self._dropped):
                self._hungry = True
                self._changed.notify_all()
                self._changed.wait()
            piece = bytes(self._data[:size])
            del self._data[:size]
            return piece

    def put(self, frames: Sequence[AudioFrame]) -> bool:
        """Hand frames over, once there is room; False when nobody wants any more."""
        with self._changed:
            self._frames += frames
            self._samples += sum(frame.samples for frame in frames)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._dropped or not self._is_full())
            return not self._dropped

    def done(self) -> None:
        """The thread ends."""
        with self._changed:
            self._done = True
            self._changed.notify_all()

    # For the other side; take() waits, so it needs a thread as well

    def feed(self, data: bytes) -> None:
        with self._changed:
            self._data += data
            self._hungry = False
            self._changed.notify_all()

    def take(self) -> tuple[list[AudioFrame], bool]:
        """The next frames, and whether more may come of the bytes that were fed."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_over() or self._is_full())
            frames, self._frames, self._samples = self._frames, [], 0
            self._changed.notify_all()
            return frames, not self._is_over()

    def end(self) -> None:
        """No more bytes."""
        with self._changed:
            self._ended, self._hungry = True, False
            self._changed.notify_all()

    def drop(self) -> None:
        """Nobody takes frames any longer."""
        with self._changed:
            self._dropped = True
            self._data.clear()
            self._changed.notify_all()

    def _is_full(self) -> bool:
        return self._samples >= _AHEAD_SECONDS * SAMPLE_RATE

    def _is_over(self) -> bool:
        return self._hungry or self._done or self._dropped


class OpusDecoder:
    """Opus in an Ogg or WebM container, decoded in a thread of its own as the bytes come."""

    def __init__(self) -> None:
        self._pipe = _Pipe()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="opus", daemon=True)
        self._thread.start()

    async def push(self, data: bytes) -> AsyncGenerator[Pcm, None]:
        self._pipe.feed(data)
        async for piece in self._taken():
            yield piece

    async def finish(self) -> AsyncGenerator[Pcm, None]:
        self._pipe.end()
        async for piece in self._taken():
            yield piece

    def close(self) -> None:
        """End the thread."""
        self._pipe.drop()

    async def _taken(self) -> AsyncGenerator[Pcm, None]:
        more = True
        while more:
            frames, more = await asyncio.to_thread(self._pipe.take)
            if self._error is not None:
                raise InvalidAudio(f"the Opus stream cannot be decoded: {self._error}")
            yield _joined(frames)

    def _run(self) -> None:
        import av

        resampler = _resampler()
        try:
            source: Any = self._pipe
            with av.open(source, mode="r", options=_OPUS_OPTIONS) as container:
                for frame in container.decode(audio=0):
                    frame.pts = None
                    if not self._pipe.put(resampler.resample(frame)):
                        return
            self._pipe.put(resampler.resample(None))
        except (av.error.FFmpegError, IndexError) as error:
            self._error = error
        finally:
            self._pipe.done()
