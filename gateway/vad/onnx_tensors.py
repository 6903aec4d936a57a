"""The weights in an ONNX file, without its operations: no runtime is needed to read them.

The file is a protobuf message; the fields' numbers are those of onnx/onnx.proto (github.com/onnx/onnx).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

# ModelProto, GraphProto, NodeProto, TensorProto.
_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_INITIALIZER = 1, 5
_NODE_INPUT, _NODE_OP_TYPE = 1, 4
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_RAW = 1, 2, 8, 9
_TYPE_FLOAT = 1
_VARINT, _SIXTY_FOUR_BITS, _BYTES, _THIRTY_TWO_BITS = 0, 1, 2, 5


class NotOnnx(ValueError):
    """The bytes are no ONNX file, or one whose weights lie elsewhere."""


def tensors_by_operation(model: bytes) -> dict[str, list[FloatArray]]:
    """The float32 weights that operations of each kind ("MatMul", "Conv") take, in the graph's order.

    Raises NotOnnx.
    """
    try:
        graph = _message(_only(_message(memoryview(model)), _MODEL_GRAPH))
        tensors = dict(_tensor(_message(value)) for value in graph[_GRAPH_INITIALIZER])
        used: defaultdict[str, list[FloatArray]] = defaultdict(list)
        for node in map(_message, graph[_GRAPH_NODE]):
            names = map(_text, node[_NODE_INPUT])
            used[_text(_only(node, _NODE_OP_TYPE))] += [tensors[name] for name in names if name in tensors]
        return dict(used)
    except (IndexError, UnicodeDecodeError, ValueError) as error:
        raise NotOnnx(str(error)) from error


_Value = memoryview | int
_Message = defaultdict[int, list[_Value]]


def _tensor(fields: _Message) -> tuple[str, FloatArray]:
    if _only(fields, _TENSOR_TYPE) != _TYPE_FLOAT:
        raise ValueError("weights are not float32")
    shape = [size for size in fields[_TENSOR_DIMS] if isinstance(size, int)]
    values = np.frombuffer(_bytes(_only(fields, _TENSOR_RAW)), dtype="<f4")
    return _text(_only(fields, _TENSOR_NAME)), values.reshape(shape)


def _only(fields: _Message, number: int) -> _Value:
    if len(fields[number]) != 1:
        raise ValueError(f"{len(fields[number])} values of field {number}, not 1")
    return fields[number][0]


def _bytes(value: _Value) -> memoryview:
    if not isinstance(value, memoryview):
        raise ValueError("a number stands where bytes belong")
    return value


def _text(value: _Value) -> str:
    return bytes(_bytes(value)).decode()


def _message(value: _Value) -> _Message:
    """All values of a protobuf message by the number of their field."""
    fields: _Message = defaultdict(list)
    for number, content in _fields(_bytes(value)):
        fields[number].append(content)
    return fields


def _fields(data: memoryview) -> Iterator[tuple[int, _Value]]:
    """The numbers of a message's fields with their values: integers where they are varints, else bytes."""
    sizes = {_SIXTY_FOUR_BITS: 8, _THIRTY_TWO_BITS: 4}
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            integer, at = _varint(data, at)
            yield number, integer
            continue
        if kind == _BYTES:
            size, at = _varint(data, at)
        elif kind in sizes:
            size = sizes[kind]
        else:
            raise ValueError(f"wire type {kind} of field {number}")
        if at + size > len(data):
            raise ValueError(f"field {number} ends after the file")
        yield number, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """A number, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at
