"""Reads Kokoro-82M's weights out of its int8 ONNX export into a PyTorch state dict.

The export keeps int8/uint8 weights with scales; initialiser names or the bias that a product is added to say
which module a weight belongs to. Packed form: integers as they are, scales in float32 (`pack`, `unpack`).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
_LSTMS = (
    "text_encoder.lstm",
    "predictor.text_encoder.lstms.0",
    "predictor.text_encoder.lstms.2",
    "predictor.text_encoder.lstms.4",
    "predictor.lstm",
    "predictor.shared",
)
_BLOCK = re.compile(r"/((?:F0|N|encode|decode)(?:\.\d)?)/")


def _module(name: str) -> str:
    """Name of a tensor in the export -> in KModel: `decoder.decoder.x` -> `decoder.x`, `encoder.x` -> `x`."""
    return name.removeprefix("encoder.") if name.startswith("encoder.") else name.removeprefix("decoder.")


class _Graph:
    """The export's initialisers, and which node makes or reads a value."""

    def __init__(self, path: Path) -> None:
        import onnx
        from onnx import numpy_helper

        graph = onnx.load(str(path)).graph
        self.nodes = list(graph.node)
        self.values: dict[str, Array] = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        self.readers: dict[str, list[Any]] = {}
        for node in self.nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    def bias_after(self, node: Any) -> str | None:
        """The bias initialiser that an integer product is added to, a few element-wise nodes later."""
        value = node.output[0]
        for _ in range(6):
            followers = self.readers.get(value, [])
            if not followers:
                return None
            step = followers[0]
            for name in step.input:
                if name.endswith((".bias", ".bias_scale")):
                    return str(name.removesuffix("_scale"))
            value = step.output[0]
        return None

    def integers(self, node: Any, weight: int, zero: int) -> dict[str, Array]:
        """A weight as it is packed: integers, zero point, scale."""
        name = node.input[weight]
        scale = self.values[name.removesuffix("_quantized") + "_scale"]
        offset = self.values.get(node.input[zero]) if len(node.input) > zero and node.input[zero] else None
        offset = np.zeros((), np.int8) if offset is None else offset
        return {"q": self.values[name], "zero": offset, "scale": scale.astype(np.float32)}


def pack(path: Path) -> dict[str, dict[str, Array]]:
    """KModel parameter name -> {"q", "zero", "scale"} or {"w"}, straight from the ONNX file.

    Raises KeyError or ValueError where the file is not the export this was written for.
    """
    graph = _Graph(path)
    packed: dict[str, dict[str, Array]] = {}
    for node in graph.nodes:
        if node.op_type in ("ConvInteger", "MatMulInteger") and node.input[1].endswith("_quantized"):
            _take_product(graph, node, packed)
        elif node.op_type == "DequantizeLinear":
            name = node.input[1].removesuffix("_scale")
            packed[_module(name)] = {
                "q": graph.values[name + "_quantized"],
                "zero": graph.values[node.input[2]],
                "scale": graph.values[node.input[1]],
            }
        elif node.op_type in ("Conv", "ConvTranspose", "MatMul"):
            _take_float(graph, node, packed)
    lstms = [n for n in graph.nodes if n.op_type == "DynamicQuantizeLSTM"]
    for node, prefix in zip(_in_width_order(graph, lstms), _LSTMS, strict=True):
        packed[prefix + ".input"] = {
            "q": graph.values[node.input[1]],
            "zero": graph.values[node.input[9]],
            "scale": graph.values[node.input[8]],
        }
        packed[prefix + ".recurrent"] = {
            "q": graph.values[node.input[2]],
            "zero": graph.values[node.input[11]],
            "scale": graph.values[node.input[10]],
        }
        packed[prefix + ".bias"] = {"w": graph.values[node.input[3]]}
    for name, value in graph.values.items():
        if re.search(r"\.(bias|alpha\d\.\d|gamma|beta)$|LayerNorm\.weight$|layer_norm\.weight$", name):
            packed.setdefault(_module(name), {"w": value})
    return packed


def _in_width_order(graph: _Graph, lstms: list[Any]) -> list[Any]:
    """LSTM nodes in _LSTMS order: the text encoder's is the 512 wide one, the others go by name."""
    return sorted(lstms, key=lambda n: (graph.values[n.input[1]].shape[1] != 512, _order(n.name)))


def _order(name: str) -> tuple[int, str]:
    for rank, part in enumerate(("/text_encoder/lstms.0", "lstms.2", "lstms.4", "predictor/lstm", "shared")):
        if part in name:
            return rank, name
    return -1, name


def _take_product(graph: _Graph, node: Any, packed: dict[str, dict[str, Array]]) -> None:
    name = node.input[1].removesuffix("_quantized")
    if name.endswith(".weight"):
        target = _module(name)
    elif graph.values[node.input[1]].shape[-1] == 1 and (block := _BLOCK.search(name)):
        inside = "predictor." if block[1][0] in "FN" else "decoder."
        target = f"{inside}{block[1]}.conv1x1.weight"
    else:
        bias = graph.bias_after(node)
        if bias is None:
            raise ValueError(f"no bias follows {node.name} ({name})")
        target = _module(bias).removesuffix("bias") + "weight"
    item = graph.integers(node, 1, 3)
    if node.op_type == "MatMulInteger":
        item = item | {"transposed": np.ones((), np.int8)}
    packed[target] = item


def _take_float(graph: _Graph, node: Any, packed: dict[str, dict[str, Array]]) -> None:
    weight = graph.values.get(node.input[1])
    if weight is None:
        return
    if node.op_type == "MatMul":
        bias = graph.bias_after(node)
        if bias is not None and weight.ndim == 2:
            packed[_module(bias).removesuffix("bias") + "weight"] = {"w": np.ascontiguousarray(weight.T)}
    elif len(node.input) > 2 and node.input[2].endswith(".bias"):
        packed[_module(node.input[2]).removesuffix("bias") + "weight"] = {"w": weight}


def dequantise(item: dict[str, Array]) -> Array:
    """float32 weight of one packed entry, in PyTorch's layout."""
    if "w" in item:
        return item["w"].astype(np.float32)
    scale, zero, q = item["scale"], item["zero"], item["q"].astype(np.float32)
    transposed = "transposed" in item
    if scale.ndim == 1 and not transposed:
        shape = (-1, *([1] * (q.ndim - 1)))
        scale, zero = scale.reshape(shape), zero.reshape(shape) if zero.ndim else zero
    weight = (q - zero.astype(np.float32)) * scale
    return np.ascontiguousarray(weight.T) if transposed else weight


def _lstm(prefix: str, packed: dict[str, dict[str, Array]]) -> dict[str, Array]:
    """ONNX gates i, o, f, c -> torch's i, f, g, o; direction 1 is torch's `_reverse`."""
    out: dict[str, Array] = {}
    bias = packed[prefix + ".bias"]["w"]

    def gates(w: Array) -> Array:
        i, o, f, c = np.split(w, 4, axis=0)
        return np.concatenate([i, f, c, o])

    for k, end in enumerate(("_l0", "_l0_reverse")):
        for part, torch_name in (("input", "weight_ih"), ("recurrent", "weight_hh")):
            out[f"{prefix}.{torch_name}{end}"] = gates(dequantise(packed[f"{prefix}.{part}"])[k].T)
        out[f"{prefix}.bias_ih{end}"], out[f"{prefix}.bias_hh{end}"] = (
            gates(b) for b in np.split(bias[k], 2)
        )
    return out


def state_dict(packed: dict[str, dict[str, Array]]) -> dict[str, Array]:
    """Packed entries -> float32 arrays under KModel's parameter names (weight norm folded into `weight`)."""
    parts = tuple(p + end for p in _LSTMS for end in (".input", ".recurrent", ".bias"))
    out = {name: dequantise(item) for name, item in packed.items() if name not in parts}
    for prefix in _LSTMS:
        out.update(_lstm(prefix, packed))
    return out
