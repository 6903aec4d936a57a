"""G.711 telephony samples (A-law and mu-law bytes) to float32, for live audio that has no container."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


def _mulaw_table() -> FloatArray:
    code = ~np.arange(256, dtype=np.uint8)
    exponent, mantissa = (code >> 4) & 7, (code & 15).astype(np.int32)
    magnitude = (((mantissa << 3) + 132) << exponent) - 132
    return (np.where(code & 128, -magnitude, magnitude) / 32768).astype(np.float32)


def _alaw_table() -> FloatArray:
    code = np.arange(256, dtype=np.uint8) ^ 0x55
    exponent, mantissa = (code >> 4) & 7, (code & 15).astype(np.int32)
    linear = (mantissa << 4) + 8
    magnitude = np.where(exponent == 0, linear, (linear + 256) << np.maximum(exponent, 1) - 1)
    return (np.where(code & 128, magnitude, -magnitude) / 32768).astype(np.float32)


_MULAW = _mulaw_table()
_ALAW = _alaw_table()


def decode_mulaw(data: bytes) -> FloatArray:
    """Samples, float32 [n] in [-1, 1], of mu-law bytes."""
    return _MULAW[np.frombuffer(data, dtype=np.uint8)]


def decode_alaw(data: bytes) -> FloatArray:
    """Samples, float32 [n] in [-1, 1], of A-law bytes."""
    return _ALAW[np.frombuffer(data, dtype=np.uint8)]
