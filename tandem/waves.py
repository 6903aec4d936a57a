"""Samples in memory as WAV files, and the duration that a WAV header states: no audio library needed."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt

SAMPLE_RATE = 16_000
_PCM, _FLOAT = 1, 3


def to_array(samples: Any) -> npt.NDArray[Any]:
    """A numpy array of an array, or of a torch tensor on any device; torch itself is not imported."""
    if hasattr(samples, "detach"):
        tensor = samples.detach().cpu()
        samples = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return np.asarray(samples)


def to_wav(samples: Any, rate: int = SAMPLE_RATE) -> bytes:
    """A WAV file of samples [n], [n, channels] or [channels, n], array or tensor.

    int16 stays as it is; every float dtype, in [-1, 1], becomes float32. Raises TypeError for other dtypes
    and ValueError for other shapes, no samples, or values that are not finite.
    """
    array = to_array(samples)
    if array.ndim == 2 and array.shape[0] < array.shape[1]:
        array = array.T
    if array.ndim not in (1, 2) or array.size == 0:
        raise ValueError(f"samples have shape {array.shape}, need [n], [n, channels] or [channels, n]")
    if array.dtype == np.int16:
        code, data = _PCM, array.astype("<i2", copy=False)
    elif np.issubdtype(array.dtype, np.floating):
        code, data = _FLOAT, array.astype("<f4", copy=False)
        if not np.isfinite(data).all():
            raise ValueError("samples hold values that are not finite")
    else:
        raise TypeError(f"samples have dtype {array.dtype}, need int16 or a float dtype")
    return _header(code, data, rate) + data.tobytes()


def _header(code: int, data: npt.NDArray[Any], rate: int) -> bytes:
    channels = 1 if data.ndim == 1 else data.shape[1]
    frame, bits = channels * data.itemsize, data.itemsize * 8
    layout = struct.pack("<HHIIHH", code, channels, rate, rate * frame, frame, bits)
    body = b"WAVEfmt " + struct.pack("<I", len(layout)) + layout + b"data" + struct.pack("<I", data.nbytes)
    return b"RIFF" + struct.pack("<I", len(body) + data.nbytes) + body


def wav_duration(data: bytes, size: int) -> float | None:
    """Seconds of audio in a WAV file of `size` bytes by its byte rate; None when it is something else.

    `data` is the file, or no less than its first 4 KiB.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        return None
    at = data.find(b"fmt ", 12, 4096)
    if at < 0 or len(data) < at + 24:
        return None
    (byte_rate,) = struct.unpack_from("<I", data, at + 16)
    return size / byte_rate if byte_rate else None
