"""The weights of FSMN-VAD, read from the files that are published: model.onnx and am.mvn."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gateway.vad.fbank import NUM_MELS
from gateway.vad.onnx_tensors import FloatArray, NotOnnx, tensors_by_operation

STACK = 5
"""Frames that an input is made of: two before, the frame itself, two after."""
TAPS = 20
"""Frames that a block's memory spans: this one and 19 before."""
MEMORY = 128
_INPUT, _BOTTLENECK, _HIDDEN, _CLASSES, _BLOCKS = STACK * NUM_MELS, 140, 250, 248, 4
_SHAPES = {
    "MatMul": [
        (_INPUT, _BOTTLENECK),
        (_BOTTLENECK, _HIDDEN),
        *[(_HIDDEN, MEMORY), (MEMORY, _HIDDEN)] * _BLOCKS,
        (_HIDDEN, _BOTTLENECK),
        (_BOTTLENECK, _CLASSES),
    ],
    "Add": [(_BOTTLENECK,), *[(_HIDDEN,)] * (1 + _BLOCKS), (_BOTTLENECK,), (_CLASSES,)],
    "Conv": [(MEMORY, 1, TAPS, 1)] * _BLOCKS,
}


class VadModelError(ValueError):
    """The VAD weights are missing or not those of FSMN-VAD."""


@dataclass(frozen=True)
class Linear:
    """x @ weight + bias: `weight` float32 [inputs, outputs], `bias` float32 [outputs]."""

    weight: FloatArray
    bias: FloatArray


@dataclass(frozen=True)
class Block:
    """h to p = h @ project, to m[t] = p[t] + sum of filters[:, k] * p[t - 19 + k], to relu(expand(m)).

    project: float32 [250, 128]. filters: float32 [128, 20], for the oldest frame first. expand: 128 to 250.
    """

    project: FloatArray
    filters: FloatArray
    expand: Linear


@dataclass(frozen=True)
class FsmnWeights:
    """Inputs [400], as (x + shift) * scale, through both of `inputs` (400 to 140 to 250) and a ReLU; the
    blocks; both of `outputs` (250 to 140 to 248) and a softmax, whose first class is silence."""

    shift: FloatArray
    scale: FloatArray
    inputs: tuple[Linear, Linear]
    blocks: tuple[Block, ...]
    outputs: tuple[Linear, Linear]


def check_vad_model(directory: Path) -> tuple[Path, Path]:
    """The files of the network and of its normalisation; VadModelError where one is missing."""
    model, cmvn = directory / "model.onnx", directory / "am.mvn"
    missing = [str(path) for path in (model, cmvn) if not path.is_file()]
    if missing:
        raise VadModelError(
            f"VAD weights are missing: {', '.join(missing)}; in a checkout `python scripts/fetch_models.py` "
            "fetches them, --vad-model or TANDEM_GATEWAY_VAD_MODEL says where else they are"
        )
    return model, cmvn


def read_weights(directory: Path) -> FsmnWeights:
    """Raises VadModelError where a file is missing or not what it should be."""
    model, cmvn = check_vad_model(directory)
    shift, scale = _read_cmvn(cmvn)
    try:
        tensors = tensors_by_operation(model.read_bytes())
    except NotOnnx as error:
        raise VadModelError(f"{model} is not an ONNX file: {error}") from error
    for operation, shapes in _SHAPES.items():
        found = [tensor.shape for tensor in tensors.get(operation, [])]
        if found != shapes:
            raise VadModelError(f"{model} is not FSMN-VAD: {operation} of {found}")
    weights, biases = tensors["MatMul"], tensors["Add"]
    blocks = [
        Block(weights[2 + 2 * index], filters[:, 0, :, 0], Linear(weights[3 + 2 * index], biases[2 + index]))
        for index, filters in enumerate(tensors["Conv"])
    ]
    first, second, last_but_one, last = (Linear(weights[at], biases[at]) for at in (0, 1, -2, -1))
    return FsmnWeights(shift, scale, (first, second), tuple(blocks), (last_but_one, last))


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
    if any(rows.get(name, np.empty(0)).shape != (_INPUT,) for name in ("<AddShift>", "<Rescale>")):
        raise VadModelError(f"{path} does not hold {_INPUT} shifts and scales")
    return rows["<AddShift>"], rows["<Rescale>"]
