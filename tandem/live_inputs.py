"""What live recognition may be given, as PCM16 bytes: a recording as a whole, or chunks as they come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tandem.errors import CapabilityMissing, InvalidAudio
from tandem.waves import SAMPLE_RATE, to_array

LiveInput: TypeAlias = Any
"""A path, bytes of a file, samples (array or tensor), or an iterable of chunks (PCM16 bytes or samples)."""

Pcm = npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class LiveAudio:
    """PCM16 little-endian in pieces of any size, mono at `rate` samples a second."""

    rate: int
    pieces: Iterable[bytes]


def live_audio(audio: LiveInput, sample_rate: int = SAMPLE_RATE) -> LiveAudio:
    """`sample_rate` is that of samples and chunks; files know theirs. Chunks are read one by one.

    Raises TypeError for what is none of these, OSError, InvalidAudio and CapabilityMissing for files.
    """
    if isinstance(audio, (str, Path)):
        return LiveAudio(SAMPLE_RATE, [recording_pcm(Path(audio).read_bytes(), str(audio)).tobytes()])
    if isinstance(audio, (bytes, bytearray)):
        return LiveAudio(SAMPLE_RATE, [recording_pcm(bytes(audio), "the recording").tobytes()])
    if hasattr(audio, "ndim"):
        return LiveAudio(sample_rate, [pcm16(audio).tobytes()])
    if isinstance(audio, Iterable):
        return LiveAudio(sample_rate, _chunks(audio))
    raise TypeError(f"cannot recognise a {type(audio).__name__}")


def _chunks(chunks: Iterable[Any]) -> Iterator[bytes]:
    for chunk in chunks:
        if isinstance(chunk, (bytes, bytearray, memoryview)):
            yield bytes(chunk)
        elif hasattr(chunk, "ndim"):
            yield pcm16(chunk).tobytes()
        else:
            raise TypeError(f"a chunk is PCM16 bytes or samples, not a {type(chunk).__name__}")


def pcm16(samples: Any) -> Pcm:
    """int16 [n] of samples [n]: int16, or any float dtype in [-1, 1], which is clipped.

    Raises TypeError for other dtypes, ValueError for other shapes and values that are not finite.
    """
    array = to_array(samples)
    if array.ndim != 1:
        raise ValueError(f"samples have shape {array.shape}, need [n]")
    if array.dtype == np.int16:
        return array.astype("<i2", copy=False)
    if not np.issubdtype(array.dtype, np.floating):
        raise TypeError(f"samples have dtype {array.dtype}, need int16 or a float dtype")
    if not np.isfinite(array).all():
        raise ValueError("samples hold values that are not finite")
    return np.rint(array.astype(np.float32) * 32768).clip(-32768, 32767).astype("<i2")


def recording_pcm(data: bytes, name: str) -> Pcm:
    """int16 [n] at 16 kHz, mono, of a recording in its container; `name` is what errors call it."""
    try:
        from gateway.audio.decode import decode
    except ImportError as error:
        raise CapabilityMissing("reading files needs `pip install tandem-asr[gateway]`") from error
    from gateway.audio.errors import AudioError

    try:
        return pcm16(decode(data).channel())
    except AudioError as error:
        raise InvalidAudio(f"{name}: {error}") from error
