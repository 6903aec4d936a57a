"""Live audio as it arrives in any format to int16 at 16 kHz, piece by piece, with no wait for more.

PyAV is imported for Opus and other rates only.
"""

from __future__ import annotations

import asyncio
import threading
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

_MIN_RATE, _MAX_RATE = 8_000, 96_000
_OPUS_OPTIONS = {
    "format_whitelist": "ogg,matroska,webm",
    "codec_whitelist": "opus,libopus",
    "protocol_whitelist": "none",
    "probesize": "4096",
    "analyzeduration": "0",
}


class LiveDecoder(Protocol):
    """One stream's decoder."""

    async def push(self, data: bytes) -> Pcm:
        """Adds bytes; the samples that became known, int16 [n] at 16 kHz. Raises InvalidAudio."""

    async def finish(self) -> Pcm:
        """The last samples."""

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

    async def push(self, data: bytes) -> Pcm:
        return self._resampler.push(self._samples(data))

    async def finish(self) -> Pcm:
        return self._resampler.finish()

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
    """Bytes from the event loop to a decoding thread, which says when it needs more."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._data = bytearray()
        self._closed = False
        self._hungry = False

    def read(self, size: int) -> bytes:
        """For the decoding thread: up to `size` bytes, none at the end."""
        with self._changed:
            while not self._data and not self._closed:
                self._hungry = True
                self._changed.notify_all()
                self._changed.wait()
            piece = bytes(self._data[:size])
            del self._data[:size]
            return piece

    def feed(self, data: bytes) -> None:
        """For the event loop's side, in a thread: add bytes and wait until they have been used."""
        with self._changed:
            self._data += data
            self._hungry = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._hungry or self._closed)

    def close(self) -> None:
        """No more bytes, or nobody reads any longer."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class OpusDecoder:
    """Opus in an Ogg or WebM container, decoded in a thread of its own as the bytes come."""

    def __init__(self) -> None:
        self._pipe = _Pipe()
        self._frames: list[AudioFrame] = []
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="opus", daemon=True)
        self._thread.start()

    async def push(self, data: bytes) -> Pcm:
        await asyncio.to_thread(self._pipe.feed, data)
        return self._taken()

    async def finish(self) -> Pcm:
        self._pipe.close()
        await asyncio.to_thread(self._thread.join)
        return self._taken()

    def close(self) -> None:
        """End the thread."""
        self._pipe.close()

    def _taken(self) -> Pcm:
        if self._error is not None:
            raise InvalidAudio(f"the Opus stream cannot be decoded: {self._error}")
        frames, self._frames = self._frames, []
        return _joined(frames)

    def _run(self) -> None:
        import av

        resampler = _resampler()
        try:
            source: Any = self._pipe
            with av.open(source, mode="r", options=_OPUS_OPTIONS) as container:
                for frame in container.decode(audio=0):
                    frame.pts = None
                    self._frames += resampler.resample(frame)
            self._frames += resampler.resample(None)
        except (av.error.FFmpegError, IndexError) as error:
            self._error = error
        finally:
            self._pipe.close()
