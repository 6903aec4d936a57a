"""FSMN-VAD's network through onnxruntime: silence probability per 10 ms frame, whole or streaming.

Weights: model.onnx and am.mvn of the published fsmn-vad. Inputs are 5 stacked fbank frames (2 before,
2 after) with mean and variance normalised; the network looks back through four caches.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from gateway.vad.fbank import FRAME_LENGTH, FRAME_SHIFT, NUM_MELS, StreamingFbank

FloatArray = NDArray[np.float32]

_STACK = 5
_LOOKAHEAD = 2
_NUM_LAYERS = 4
_CACHE_SHAPE = (1, 128, 19, 1)
_SILENCE_COLUMN = 0


class VadModelError(RuntimeError):
    """The VAD weights are missing or not those of FSMN-VAD."""


@dataclass(frozen=True)
class FrameScores:
    """Scores of consecutive frames: silence probability float32 [n], loudness float32 [n].

    Loudness is the mean log-mel energy of the frame; only differences mean something.
    """

    silence: FloatArray
    loudness: FloatArray

    def __len__(self) -> int:
        return len(self.silence)


def _read_cmvn(path: Path) -> tuple[FloatArray, FloatArray]:
    """Shift and scale, float32 [400] each, from the Kaldi nnet text of am.mvn: y = (x + shift) * scale."""
    rows: dict[str, FloatArray] = {}
    tag = ""
    for line in path.read_text(encoding="ascii").splitlines():
        fields = line.split()
        if fields and fields[0] in ("<AddShift>", "<Rescale>"):
            tag = fields[0]
        elif fields and fields[0] == "<LearnRateCoef>" and tag:
            rows[tag] = np.array(fields[3:-1], dtype=np.float32)
    width = _STACK * NUM_MELS
    if any(rows.get(name, np.empty(0)).shape != (width,) for name in ("<AddShift>", "<Rescale>")):
        raise VadModelError(f"{path} does not hold {width} shifts and scales")
    return rows["<AddShift>"], rows["<Rescale>"]


def check_vad_model(directory: Path) -> tuple[Path, Path]:
    """The files of the network and of its normalisation; VadModelError where one is missing."""
    model, cmvn = directory / "model.onnx", directory / "am.mvn"
    missing = [str(path) for path in (model, cmvn) if not path.is_file()]
    if missing:
        raise VadModelError(f"VAD weights are missing: {', '.join(missing)}; `make setup` fetches them")
    return model, cmvn


class FsmnVad:
    """The loaded network; safe to share between threads, since all state lives in FsmnStream."""

    def __init__(self, directory: Path) -> None:
        model, cmvn = check_vad_model(directory)
        shift, scale = _read_cmvn(cmvn)
        # (x + shift) * scale as one multiplication and one addition.
        self._scale, self._offset = scale, shift * scale
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self._inputs = [node.name for node in self._session.get_inputs()]
        self._outputs = [node.name for node in self._session.get_outputs()]
        if len(self._inputs) != 1 + _NUM_LAYERS or len(self._outputs) != 1 + _NUM_LAYERS:
            raise VadModelError(f"{model} is not FSMN-VAD: inputs {self._inputs}")

    def stream(self) -> FsmnStream:
        """Fresh state for one recording or live stream."""
        return FsmnStream(self)

    def run(self, features: FloatArray, caches: list[FloatArray]) -> tuple[FloatArray, list[FloatArray]]:
        """Silence probability [n] of fbank frames [n + 4, 80], and the caches after them."""
        count = len(features) - _STACK + 1
        # Rows overlap in memory: row t is frames t..t+4 end to end.
        stacked = np.lib.stride_tricks.as_strided(
            features, (count, _STACK * NUM_MELS), features.strides, writeable=False
        )
        inputs = stacked * self._scale
        inputs += self._offset
        feed = dict(zip(self._inputs, [inputs[None], *caches], strict=True))
        scores, *caches = self._session.run(self._outputs, feed)
        return np.ascontiguousarray(scores[0, :, _SILENCE_COLUMN]), caches


class FsmnStream:
    """Scores of one stream; frame t is known once frame t + 2 is complete."""

    def __init__(self, model: FsmnVad) -> None:
        self._model = model
        self._fbank = StreamingFbank()
        self._caches = [np.zeros(_CACHE_SHAPE, dtype=np.float32) for _ in range(_NUM_LAYERS)]
        self._features = np.empty((0, NUM_MELS), dtype=np.float32)

    def push(self, samples: FloatArray) -> FrameScores:
        """Adds samples, float32 [n] in [-1, 1], and returns the scores that became known."""
        return self._score(self._fbank.push(samples))

    def finish(self) -> FrameScores:
        """The last frames; nothing can be pushed afterwards."""
        if not len(self._features):
            return self._score(self._features)
        return self._score(np.repeat(self._features[-1:], _LOOKAHEAD, axis=0))

    def _score(self, new: FloatArray) -> FrameScores:
        if len(new) and not len(self._features):
            new = np.concatenate([np.repeat(new[:1], _STACK - 1 - _LOOKAHEAD, axis=0), new])
        features = np.concatenate([self._features, new])
        count = max(0, len(features) - _STACK + 1)
        self._features = features[count:]
        if not count:
            return FrameScores(np.empty(0, np.float32), np.empty(0, np.float32))
        silence, self._caches = self._model.run(features, self._caches)
        centre = features[_LOOKAHEAD : _LOOKAHEAD + count]
        return FrameScores(silence, centre.mean(axis=1))


def frame_ready_ms(frame: int) -> float:
    """How much audio, in ms, must have arrived before `frame` has a score."""
    return ((frame + _LOOKAHEAD) * FRAME_SHIFT + FRAME_LENGTH) / 16.0
