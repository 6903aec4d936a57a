"""The tensor path: numpy arrays to raw little-endian bytes in 256 KiB chunks and back, every length checked.

bfloat16 has no numpy type: it travels as its bit pattern in a uint16 array, marked by WireTensor.dtype.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tandem.errors import InvalidRequest, LimitExceeded
from tandem.tensor.v1 import tensor_pb2 as pb

CHUNK_BYTES = 256 * 1024
"""Fastest message size of grpc.aio with the default allocator."""

Array = npt.NDArray[np.generic]

_NUMPY: dict[int, np.dtype[np.generic]] = {
    pb.DATA_TYPE_FLOAT32: np.dtype("<f4"),
    pb.DATA_TYPE_FLOAT16: np.dtype("<f2"),
    pb.DATA_TYPE_BFLOAT16: np.dtype("<u2"),
    pb.DATA_TYPE_INT32: np.dtype("<i4"),
    pb.DATA_TYPE_INT64: np.dtype("<i8"),
    pb.DATA_TYPE_UINT8: np.dtype("u1"),
}
_WIRE: dict[np.dtype[np.generic], pb.DataType.ValueType] = {
    np.dtype("<f4"): pb.DATA_TYPE_FLOAT32,
    np.dtype("<f2"): pb.DATA_TYPE_FLOAT16,
    np.dtype("<i4"): pb.DATA_TYPE_INT32,
    np.dtype("<i8"): pb.DATA_TYPE_INT64,
    np.dtype("u1"): pb.DATA_TYPE_UINT8,
}


@dataclass(frozen=True, slots=True)
class WireTensor:
    """A tensor as it travels: `array` is C-contiguous; uint16 bit patterns when `dtype` is bfloat16."""

    array: Array
    dtype: pb.DataType.ValueType

    @classmethod
    def of(cls, array: npt.NDArray[np.generic]) -> WireTensor:
        """Wrap a float32, float16, int32, int64 or uint8 array; other dtypes raise TypeError."""
        try:
            little = array.dtype.newbyteorder("<")
            return cls(np.asarray(array, little, order="C"), _WIRE[little])
        except KeyError:
            raise TypeError(f"no wire type for dtype {array.dtype}") from None

    @classmethod
    def bfloat16(cls, bits: npt.NDArray[np.uint16]) -> WireTensor:
        return cls(np.asarray(bits, order="C"), pb.DATA_TYPE_BFLOAT16)

    def __len__(self) -> int:
        """Of the first dimension."""
        return len(self.array)

    @property
    def data(self) -> memoryview:
        """All its bytes, not copied."""
        return self.array.reshape(-1).view(np.uint8).data

    @property
    def spec(self) -> pb.TensorSpec:
        return pb.TensorSpec(dtype=self.dtype, shape=self.array.shape)

    def is_finite(self) -> bool:
        """Whether no value is infinite or not a number."""
        if self.dtype == pb.DATA_TYPE_BFLOAT16:
            # All ones in the exponent, whatever the sign and the fraction.
            return not np.any(np.bitwise_and(self.array.view(np.uint16), 0x7F80) == 0x7F80)
        return bool(np.isfinite(self.array).all())

    def float32(self) -> npt.NDArray[np.float32]:
        """The values as float32, whatever float type they travelled in."""
        if self.dtype == pb.DATA_TYPE_BFLOAT16:
            return (self.array.astype(np.uint32) << 16).view(np.float32)
        return self.array.astype(np.float32, copy=False)


def byte_size(spec: pb.TensorSpec, field: str = "spec") -> int:
    """product(shape) * size(dtype); InvalidRequest for an unknown dtype."""
    dtype = _NUMPY.get(spec.dtype)
    if dtype is None:
        raise InvalidRequest.of(f"{field}.dtype", f"unknown data type {spec.dtype}")
    return math.prod(spec.shape) * dtype.itemsize


def to_message(tensor: WireTensor) -> pb.Tensor:
    return pb.Tensor(spec=tensor.spec, data=tensor.array.tobytes())


def from_message(message: pb.Tensor, field: str = "tensor") -> WireTensor:
    """A read-only view of the message's bytes; InvalidRequest when their number is not what the spec says."""
    return from_bytes(message.spec, message.data, field)


def chunks(name: str, tensor: WireTensor) -> Iterator[pb.TensorChunk]:
    """The tensor in messages of at most CHUNK_BYTES. An empty tensor is one message."""
    data = tensor.data
    for offset in range(0, max(1, len(data)), CHUNK_BYTES):
        piece = bytes(data[offset : offset + CHUNK_BYTES])
        spec = tensor.spec if offset == 0 else None
        yield pb.TensorChunk(name=name, spec=spec, offset=offset, data=piece)


class TensorAssembler:
    """Puts one stream's chunks together; refuses gaps, surplus bytes and more than `max_bytes` in all."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._total = 0
        self._specs: dict[str, pb.TensorSpec] = {}
        self._pieces: dict[str, list[bytes]] = {}
        self._sizes: dict[str, int] = {}

    def add(self, chunk: pb.TensorChunk) -> None:
        name = chunk.name
        if chunk.HasField("spec"):
            self._begin(name, chunk.spec)
        if name not in self._specs:
            raise InvalidRequest.of("chunk.spec", f"first chunk of tensor {name!r} has no spec")
        size, data = self._sizes[name], chunk.data
        if chunk.offset != size:
            raise InvalidRequest.of("chunk.offset", f"tensor {name!r}: expected {size}, got {chunk.offset}")
        if size + len(data) > byte_size(self._specs[name]):
            raise InvalidRequest.of("chunk.data", f"tensor {name!r} has more bytes than its spec")
        self._pieces[name].append(data)
        self._sizes[name] += len(data)

    def _begin(self, name: str, spec: pb.TensorSpec) -> None:
        if name in self._specs:
            raise InvalidRequest.of("chunk.spec", f"tensor {name!r} was announced before")
        size = byte_size(spec, f"tensor {name!r}")
        self._total += size
        if self._total > self._max_bytes:
            raise LimitExceeded(f"tensors of {self._total} bytes exceed the limit of {self._max_bytes} bytes")
        self._specs[name] = spec
        self._pieces[name], self._sizes[name] = [], 0

    def names(self) -> list[str]:
        return list(self._specs)

    def take(self, name: str) -> WireTensor:
        """The complete tensor; InvalidRequest when it is unknown or bytes are missing."""
        if name not in self._specs:
            raise InvalidRequest.of("chunk.name", f"tensor {name!r} never arrived")
        spec, data = self._specs.pop(name), b"".join(self._pieces.pop(name))
        return from_bytes(spec, data, f"tensor {name!r}")


def from_bytes(spec: pb.TensorSpec, data: bytes, field: str = "data") -> WireTensor:
    """A read-only view of the bytes; InvalidRequest when their number is not what the spec says."""
    expected = byte_size(spec, field)
    if len(data) != expected:
        shape, kind = list(spec.shape), pb.DataType.Name(spec.dtype)
        raise InvalidRequest.of(field, f"{len(data)} bytes where {kind} {shape} needs {expected}")
    array = np.frombuffer(data, _NUMPY[spec.dtype]).reshape(tuple(spec.shape))
    return WireTensor(array, spec.dtype)
