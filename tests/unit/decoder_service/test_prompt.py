"""The request stream: config first, announced tensors in order, nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from decoder_service.engines.base import GenerationRequest, Prompt
from decoder_service.engines.prompt_rows import prompt_rows
from decoder_service.prompt import receive_config, receive_prompt
from tandem.decoder.v1 import decoder_pb2 as pb
from tandem.errors import InvalidRequest
from tandem.rpc.tensors import WireTensor
from tests.support.decoding import messages
from tests.unit.decoder_service.test_validation import INFO

RNG = np.random.default_rng(0)
SHORT = RNG.standard_normal((3, 16)).astype(np.float32)


async def stream(items: Sequence[pb.GenerateRequest]) -> AsyncIterator[pb.GenerateRequest]:
    for item in items:
        yield item


async def receive(items: Sequence[pb.GenerateRequest]) -> GenerationRequest:
    source = stream(items)
    config = await receive_config(source)
    return await receive_prompt(config, source, INFO)


async def fault(items: Sequence[pb.GenerateRequest]) -> str:
    with pytest.raises(InvalidRequest) as caught:
        await receive(items)
    return caught.value.violations[0].field


async def test_parts_keep_their_order_and_values() -> None:
    parts: list[Any] = [(1, 2), SHORT, (), (3,), SHORT * 2]
    request = await receive(messages(parts, request_id="mine"))
    got = request.prompt.parts
    assert request.request_id == "mine"
    assert [got[0], got[2]] == [(1, 2), (3,)]
    assert isinstance(got[1], WireTensor) and np.array_equal(got[1].array, SHORT)
    assert isinstance(got[3], WireTensor) and np.array_equal(got[3].array, SHORT * 2)


async def test_a_request_without_id_gets_one() -> None:
    ids = {(await receive(messages([(1,)]))).request_id for _ in range(2)}
    assert len(ids) == 2
    assert "" not in ids


async def test_faults_of_the_stream() -> None:
    whole = messages([SHORT, SHORT])
    assert await fault([]) == "config"
    assert await fault(whole[1:]) == "config"
    assert await fault([*whole, whole[0]]) == "config"
    assert await fault([whole[0], whole[2], whole[1]]) == "chunk.name"
    assert await fault(whole[:2]) == "chunk.name"
    assert await fault([*whole, whole[1]]) == "chunk.spec"


async def test_a_chunk_must_be_what_the_config_announced() -> None:
    whole = messages([SHORT])
    whole[1].chunk.spec.shape[:] = [4, 16]
    assert await fault(whole) == "chunk.spec"


async def test_surplus_and_missing_bytes_are_refused() -> None:
    whole = messages([SHORT])
    whole[1].chunk.data += b"\0"
    assert await fault(whole) == "chunk.data"
    whole = messages([SHORT])
    whole[1].chunk.data = whole[1].chunk.data[:-1]
    assert await fault(whole) == "tensor 'part0'"


def test_positions_of_a_mixed_prompt() -> None:
    prompt = Prompt(((7, 8), WireTensor.of(SHORT), (9,)))
    assert len(prompt) == 6
    assert prompt.token_ids() == [7, 8, 7, 7, 7, 9]
    assert prompt.is_token() == [True, True, False, False, False, True]
    rows = prompt_rows(prompt, 16, torch.float32)
    assert np.array_equal(rows[2:5].numpy(), SHORT)
    assert not rows[[0, 1, 5]].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_embeddings_of_any_float_type_become_rows_of_the_engine(dtype: torch.dtype) -> None:
    exact = np.array([[1.0, -2.5], [0.0, 3.140625]], np.float32)
    bits = (exact.view(np.uint32) >> 16).astype(np.uint16)
    for sent in (WireTensor.of(exact), WireTensor.of(exact.astype(np.float16)), WireTensor.bfloat16(bits)):
        rows = prompt_rows(Prompt(((1,), sent)), 2, dtype)
        assert rows.dtype is dtype
        assert np.array_equal(rows[1:].float().numpy(), exact)


async def test_values_that_are_not_finite_are_refused_in_every_float_type() -> None:
    for bad in (np.inf, -np.inf, np.nan):
        values = np.array([[1.0, bad]], np.float32).repeat(8, axis=1)
        bits = (values.view(np.uint32) >> 16).astype(np.uint16)
        half = WireTensor.of(values.astype(np.float16))
        for sent in (WireTensor.of(values), half, WireTensor.bfloat16(bits)):
            assert await fault(messages([sent])) == "chunk.data"


async def test_final_only_reaches_the_engine() -> None:
    assert [(await receive(messages([(1,)], final_only=wanted))).final_only for wanted in (False, True)] == [
        False,
        True,
    ]
