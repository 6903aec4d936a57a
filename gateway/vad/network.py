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
from gateway.vad.windows import windows

_ROW = 16
_HISTORY = TAPS - 1


@dataclass(frozen=True)
class _Layer:
    """One block.

    project: [128, 250]. missing: [128, 1, 1], what projections lack because their input lacks its bias.
    filters: [128, 20]. expand: [250, 128]. floor: [250, 1], the output's bias times -1.
    """

    project: FloatArray
    missing: FloatArray
    filters: FloatArray
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
        # By frames in a row: 16 for recordings, a step's frames for live audio.
        self._toeplitz: dict[int, list[FloatArray]] = {}
        self._narrow = _rows(narrow.weight)
        self._classes = _rows(classes.weight - classes.weight[:, :1])
        logits = (bias @ narrow.weight + narrow.bias) @ classes.weight + classes.bias
        self._odds = np.exp(logits - logits[0])

    def initial_memory(self, streams: int) -> FloatArray:
        """What streams remember before their first frame: float32 [streams, 4, 128, 19]."""
        return np.zeros((streams, len(self._layers), MEMORY, _HISTORY), np.float32)

    def advance(self, features: FloatArray, memory: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The next `m` frames of each of `n` streams.

        features: fbank frames, float32 [n, m + 4, 80]. memory: float32 [n, 4, 128, 19]. Returns p(silence),
        float32 [n, m], and the memory after these frames.
        """
        streams, frames = features.shape[0], features.shape[1] - STACK + 1
        row = min(_ROW, frames)
        width = -(-frames // row) * row
        hidden = self._second @ (self._first @ _stacked(features).T)
        np.maximum(hidden, self._floor, out=hidden)
        after = np.empty_like(memory)
        for index, (layer, toeplitz) in enumerate(zip(self._layers, self._filters(row), strict=True)):
            projected = (layer.project @ hidden).reshape(MEMORY, streams, frames)
            remembered = np.zeros((MEMORY, streams, _HISTORY + width), np.float32)
            remembered[:, :, :_HISTORY] = memory[:, index].swapaxes(0, 1)
            np.add(projected, layer.missing, out=remembered[:, :, _HISTORY : _HISTORY + frames])
            after[:, index] = remembered[:, :, frames : _HISTORY + frames].swapaxes(0, 1)
            rows = windows(remembered, _HISTORY + row, row).reshape(MEMORY, -1, _HISTORY + row)
            filtered = rows @ toeplitz
            filtered = filtered.reshape(MEMORY, streams, width)[:, :, :frames]
            hidden = layer.expand @ filtered.reshape(MEMORY, streams * frames)
            np.maximum(hidden, layer.floor, out=hidden)
        logits = self._classes @ (self._narrow @ hidden)
        # A sum beyond float32 is a probability of 0.
        with np.errstate(over="ignore"):
            silence = 1 / (self._odds @ np.exp(logits, out=logits))
        return silence.reshape(streams, frames), after

    def _filters(self, row: int) -> list[FloatArray]:
        """The blocks' filters as products with rows of so many frames."""
        if row not in self._toeplitz:
            self._toeplitz[row] = [_toeplitz(layer.filters, row) for layer in self._layers]
        return self._toeplitz[row]


def _stacked(features: FloatArray) -> FloatArray:
    """Each frame with its two neighbours on both sides, [n * m, 400], of frames [n, m + 4, 80]."""
    streams, frames, mels = features.shape
    flat = np.ascontiguousarray(features).reshape(streams, frames * mels)
    return windows(flat, STACK * mels, mels).reshape(-1, STACK * mels)


def _layer(block: Block, bias: NDArray[np.floating]) -> _Layer:
    """A block whose input lacks `bias`, [250]."""
    return _Layer(
        _rows(block.project),
        _column(bias @ block.project)[:, None],
        block.filters,
        _rows(block.expand.weight),
        _column(-block.expand.bias),
    )


def _toeplitz(filters: FloatArray, row: int) -> FloatArray:
    """[128, 19 + row, row] of filters [128, 20]: column t has what frame t takes of itself and 19 before."""
    matrix = np.zeros((MEMORY, _HISTORY + row, row), np.float32)
    for frame in range(row):
        matrix[:, frame : frame + TAPS, frame] = filters
        matrix[:, frame + _HISTORY, frame] += 1
    return matrix


def _rows(weight: NDArray[np.floating]) -> FloatArray:
    """[outputs, inputs] of [inputs, outputs]."""
    return np.ascontiguousarray(weight.T, dtype=np.float32)


def _column(values: NDArray[np.floating]) -> FloatArray:
    return values.astype(np.float32)[:, None]
