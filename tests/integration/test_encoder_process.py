"""The encoder process when its device fails: it turns callers away and ends, so that it is started anew."""

from __future__ import annotations

import tempfile
from pathlib import Path

import grpc
import pytest

from tandem.encoder.v1 import encoder_pb2 as pb
from tandem.encoder.v1 import encoder_pb2_grpc
from tandem.errors import Unavailable
from tandem.launcher import is_ready, spawn, wait_ready
from tandem.rpc.status import from_rpc_error
from tests.support.services import NANO


def test_a_lost_device_ends_the_process() -> None:
    with tempfile.TemporaryDirectory(prefix="tandem-test-") as directory:
        address = f"unix:{directory}/encoder.sock"
        flags = ["--model", str(NANO), "--listen", address, "--speaker-model", "none"]
        tier = spawn("encoder", "tests.support.lost_device", flags, address, Path(directory))
        try:
            wait_ready([tier], timeout=120)
            with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as caught:
                stub = encoder_pb2_grpc.EncoderServiceStub(channel)
                audio = pb.EncodeRequest(audio=bytes(32_000))
                config = pb.EncodeConfig(audio=pb.AudioConfig(format=pb.SAMPLE_FORMAT_S16LE))
                list(stub.Encode(iter([pb.EncodeRequest(config=config), audio]), timeout=60))
            assert isinstance(from_rpc_error(caught.value), Unavailable)
            assert tier.process.wait(30) == 1
            assert not is_ready(address)
        finally:
            tier.end(grace=1)
