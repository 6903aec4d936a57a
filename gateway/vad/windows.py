"""Overlapping stretches of an array as rows of another, without a copy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


def windows(values: FloatArray, length: int, shift: int) -> FloatArray:
    """[..., m, length] of contiguous float32 [..., s]: window t begins at t * shift. To be read only.

    What numpy has for this takes longer than the work on a live stream's few frames.
    """
    count = 1 + (values.shape[-1] - length) // shift
    strides = (*values.strides[:-1], shift * values.itemsize, values.itemsize)
    return np.ndarray((*values.shape[:-1], count, length), values.dtype, values, strides=strides)
