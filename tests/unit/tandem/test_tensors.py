"""The tensor path: every dtype survives the wire, every lie about length is refused."""

from __future__ import annotations

import numpy as np
import pytest

from tandem.errors import InvalidRequest, LimitExceeded
from tandem.rpc.tensors import CHUNK_BYTES, TensorAssembler, WireTensor, chunks, from_message, to_message
from tandem.tensor.v1 import tensor_pb2 as pb

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int32", "int64", "uint8"])
@pytest.mark.parametrize("shape", [(), (0, 4), (3,), (5, 7), (300, 400)])
def test_round_trip_in_chunks(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.asarray(RNG.uniform(0, 100, shape)).astype(dtype)
    assembler = TensorAssembler(max_bytes=10**7)
    sent = list(chunks("x", WireTensor.of(array)))
    for chunk in sent:
        assembler.add(pb.TensorChunk.FromString(chunk.SerializeToString()))
    received = assembler.take("x")
    assert received.array.dtype == array.dtype
    assert received.array.shape == array.shape
    assert np.array_equal(received.array, array)
    assert len(sent) == max(1, -(-array.nbytes // CHUNK_BYTES))


def test_big_endian_input_travels_little_endian() -> None:
    array = np.arange(5, dtype=">f4")
    message = to_message(WireTensor.of(array))
    assert message.data == np.arange(5, dtype="<f4").tobytes()


def test_bfloat16_is_the_upper_half_of_float32() -> None:
    values = np.array([1.0, -2.5, 0.0, 3.140625], np.float32)
    bits = (values.view(np.uint32) >> 16).astype(np.uint16)
    received = from_message(to_message(WireTensor.bfloat16(bits)))
    assert np.array_equal(received.float32(), values)


def test_wrong_length_is_refused_with_the_dtype_it_was_read_as() -> None:
    spec = pb.TensorSpec(dtype=pb.DATA_TYPE_FLOAT32, shape=[2, 2])
    with pytest.raises(InvalidRequest, match=r"15 bytes where DATA_TYPE_FLOAT32 \[2, 2\] needs 16"):
        from_message(pb.Tensor(spec=spec, data=b"x" * 15))


def test_unknown_dtype_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="unknown data type"):
        from_message(pb.Tensor(spec=pb.TensorSpec(dtype=99, shape=[1]), data=b"x"))  # type: ignore[arg-type]


def test_a_huge_announcement_is_refused_before_any_byte_arrives() -> None:
    spec = pb.TensorSpec(dtype=pb.DATA_TYPE_FLOAT32, shape=[2**40])
    with pytest.raises(LimitExceeded):
        TensorAssembler(max_bytes=10**6).add(pb.TensorChunk(name="x", spec=spec))


def test_gaps_surplus_and_missing_bytes_are_refused() -> None:
    spec = pb.TensorSpec(dtype=pb.DATA_TYPE_UINT8, shape=[4])
    assembler = TensorAssembler(max_bytes=100)
    with pytest.raises(InvalidRequest, match="no spec"):
        assembler.add(pb.TensorChunk(name="x", data=b"ab"))
    assembler.add(pb.TensorChunk(name="x", spec=spec, data=b"ab"))
    with pytest.raises(InvalidRequest, match="expected 2, got 3"):
        assembler.add(pb.TensorChunk(name="x", offset=3, data=b"d"))
    with pytest.raises(InvalidRequest, match="more bytes"):
        assembler.add(pb.TensorChunk(name="x", offset=2, data=b"cde"))
    with pytest.raises(InvalidRequest, match="announced before"):
        assembler.add(pb.TensorChunk(name="x", spec=spec))
    with pytest.raises(InvalidRequest, match="2 bytes where"):
        assembler.take("x")
    with pytest.raises(InvalidRequest, match="never arrived"):
        assembler.take("y")


def test_dtypes_without_a_wire_type_are_refused() -> None:
    with pytest.raises(TypeError, match="complex"):
        WireTensor.of(np.zeros(2, np.complex64))
