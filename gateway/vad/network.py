"""FSMN-VAD's network as matrix products over all frames of any number of streams.

Arrays hold features in rows and frames in columns, one stream's frames after another's, so that a product
serves all streams at once and nothing is ever transposed. Three things are arranged otherwise than published:

* x + b before a ReLU is max(x, -b) + b, and the + b goes on to the next layer, where adding it costs nothing.
* Class weights are relative to silence, so that p(silence) = 1 / sum(exp(logits)).
* The filter over time is a product with a Toeplitz matrix for each of 128 features, in rows of 16 frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.vad.onnx_tensors import FloatArray
from gateway.vad.weights import MEMORY, STACK, TAPS, Block, FsmnWeights

_ROW = 16
_HISTORY = TAPS - 1


@dataclass(frozen=True)
class _Layer:
    """One block.

    project: [128, 250]. missing: [128, 1, 1], what projections lack because their input lacks its bias.
    toeplitz: [128, 19 + 16, 16]. expand: [250, 128]. floor: [250, 1], the output's bias times -1.
    """

    project: FloatArray
    missing: FloatArray
    toeplitz: FloatArray
    expand: FloatArray
    floor: FloatArray


class FsmnNetwork:
    """The weights, ready for use; safe to share between threads."""

    def __init__(self, weights: FsmnWeights) -> None:
        (first, second), (narrow, classes) = weights.inputs, weights.outputs
        scale = weights.scale.astype(np.float64)
        self._first = _rows(scale[:, None] * first.weight)
        self._second = _rows(second.weight)
        offset = (weights.shift * scale) @ first.weight + first.bias
        bias: NDArray[np.floating] = offset @ second.weight + second.bias
        self._floor = _column(-bias)
        layers = []
        for block in weights.blocks:
            layers.append(_layer(block, bias))
            bias = block.expand.bias
        self._layers = tuple(layers)
        self._narrow = _rows(narrow.weight)
        self._classes = _rows(classes.weight - classes.weight[:, :1])
        logits = (bias @ narrow.weight + narrow.bias) @ classes.weight + classes.bias
        self._odds = np.exp(logits - logits[0])

    def initial_memory(self, streams: int = 1) -> FloatArray:
        """What streams remember before their first frame: float32 [4, 128, streams, 19]."""
        return np.zeros((len(self._layers), MEMORY, streams, _HISTORY), np.float32)

    def advance(self, features: FloatArray, memory: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The next `m` frames of each of `n` streams.

        features: fbank frames, float32 [n, m + 4, 80]. memory: float32 [4, 128, n, 19]. Returns p(silence),
        float32 [n, m], and the memory after these frames.
        """
        streams, frames = features.shape[0], features.shape[1] - STACK + 1
        row = min(_ROW, frames)
        width = -(-frames // row) * row
        hidden = self._second @ (self._first @ _stacked(features).T)
        np.maximum(hidden, self._floor, out=hidden)
        after = np.empty_like(memory)
        for layer, before, kept in zip(self._layers, memory, after, strict=True):
            projected = (layer.project @ hidden).reshape(MEMORY, streams, frames)
            remembered = np.zeros((MEMORY, streams, _HISTORY + width), np.float32)
            remembered[:, :, :_HISTORY] = before
            np.add(projected, layer.missing, out=remembered[:, :, _HISTORY : _HISTORY + frames])
            kept[:] = remembered[:, :, frames : _HISTORY + frames]
            filtered = _rows_of(remembered, row) @ layer.toeplitz[:, : _HISTORY + row, :row]
            filtered = filtered.reshape(MEMORY, streams, width)[:, :, :frames]
            hidden = layer.expand @ filtered.reshape(MEMORY, streams * frames)
            np.maximum(hidden, layer.floor, out=hidden)
        logits = self._classes @ (self._narrow @ hidden)
        # A sum beyond float32 is a probability of 0.
        with np.errstate(over="ignore"):
            silence = 1 / (self._odds @ np.exp(logits, out=logits))
        return silence.reshape(streams, frames), after


def _stacked(features: FloatArray) -> FloatArray:
    """Each frame with its two neighbours on both sides, [n * m, 400], of frames [n, m + 4, 80]."""
    streams, frames, mels = features.shape
    shape, strides = (streams, frames - STACK + 1, STACK * mels), features.strides
    rows = np.lib.stride_tricks.as_strided(features, shape, strides, writeable=False)
    return rows.reshape(-1, STACK * mels)


def _rows_of(remembered: FloatArray, row: int) -> FloatArray:
    """Every `row` frames with the 19 before them, [128, n * r, 19 + row], of [128, n, 19 + r * row]."""
    if remembered.shape[2] == _HISTORY + row:
        return remembered
    windows = np.lib.stride_tricks.sliding_window_view(remembered, _HISTORY + row, axis=2)
    return windows[:, :, ::row].reshape(MEMORY, -1, _HISTORY + row)


def _layer(block: Block, bias: NDArray[np.floating]) -> _Layer:
    """A block whose input lacks `bias`, [250]."""
    return _Layer(
        _rows(block.project),
        _column(bias @ block.project)[:, None],
        _toeplitz(block.filters),
        _rows(block.expand.weight),
        _column(-block.expand.bias),
    )


def _toeplitz(filters: FloatArray) -> FloatArray:
    """[128, 19 + 16, 16] of filters [128, 20]: column t has what frame t takes of itself and 19 before."""
    matrix = np.zeros((MEMORY, _HISTORY + _ROW, _ROW), np.float32)
    for frame in range(_ROW):
        matrix[:, frame : frame + TAPS, frame] = filters
        matrix[:, frame + _HISTORY, frame] += 1
    return matrix


def _rows(weight: NDArray[np.floating]) -> FloatArray:
    """[outputs, inputs] of [inputs, outputs]."""
    return np.ascontiguousarray(weight.T, dtype=np.float32)


def _column(values: NDArray[np.floating]) -> FloatArray:
    return values.astype(np.float32)[:, None]
