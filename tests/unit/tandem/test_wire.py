"""Messages put together from buffers read as protobuf's own; tiers choose gRPC's engine in time."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tandem.decoder.v1 import decoder_pb2 as pb
from tandem.rpc.wire import field


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 300_000])
def test_a_field_of_any_size(size: int) -> None:
    value = os.urandom(size)
    pieces = [memoryview(value)[: size // 2], memoryview(value)[size // 2 :]]
    encoded = b"".join(field(pb.GenerateAtOnceRequest, "embeddings", pieces))
    assert pb.GenerateAtOnceRequest.FromString(encoded) == pb.GenerateAtOnceRequest(embeddings=[value])


def test_messages_in_a_message() -> None:
    prompts = [
        pb.GenerateAtOnceRequest(config=pb.GenerateConfig(request_id=name), embeddings=[b"x" * 300])
        for name in ("first", "second")
    ]
    pieces = [
        piece
        for prompt in prompts
        for piece in field(pb.GenerateBatchRequest, "prompts", [prompt.SerializeToString()])
    ]
    rest = pb.GenerateBatchRequest(more_follow=True).SerializeToString()
    expected = pb.GenerateBatchRequest(prompts=prompts, more_follow=True)
    assert pb.GenerateBatchRequest.FromString(b"".join([*pieces, rest])) == expected


@pytest.mark.parametrize("tier", ["encoder_service", "decoder_service", "gateway"])
@pytest.mark.parametrize("chosen", [None, ""])
def test_tiers_choose_the_engine_before_grpc_is_loaded(tier: str, chosen: str | None) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "GRPC_EXPERIMENTS"}
    if chosen is not None:
        environment["GRPC_EXPERIMENTS"] = chosen
    code = f"import os, sys, {tier}; assert 'grpc' not in sys.modules; print(os.environ['GRPC_EXPERIMENTS'])"
    found = subprocess.run([sys.executable, "-c", code], env=environment, text=True, capture_output=True)
    expected = "-event_engine_client,-event_engine_listener" if chosen is None else chosen
    assert found.stdout.strip() == expected, found.stderr
