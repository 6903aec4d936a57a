"""What local services are told about devices, and how many there are of a kind."""

from __future__ import annotations

from pathlib import Path

import pytest

import decoder_service.config
import encoder_service.config
from tandem.errors import InvalidRequest
from tandem.launcher import Addresses
from tandem.local import EngineOptions


@pytest.mark.parametrize(("gpus", "expected"), [(1, "cuda:2"), (2, "auto")])
def test_a_decoder_on_several_gpus_is_not_tied_to_the_encoders(gpus: int, expected: str) -> None:
    options = EngineOptions(device="cuda:2", tensor_parallel_size=gpus)
    assert encoder_service.config.parse(["--model=x", *options.encoder_args()]).device == "cuda:2"
    decoder = decoder_service.config.parse(["--model=x", *options.decoder_args()])
    assert (decoder.device, decoder.tensor_parallel_size) == (expected, gpus)


@pytest.mark.parametrize(("cores", "expected"), [(1, 1), (7, 1), (8, 2), (16, 4), (64, 4)])
def test_gateways_follow_the_cores(cores: int, expected: int) -> None:
    assert EngineOptions().gateway_count(cores) == expected


def test_gateways_are_what_was_asked_for() -> None:
    assert EngineOptions(gateways=3).gateway_count(cores=2) == 3


def test_decoders_divide_the_memory_and_have_an_encoder_each(tmp_path: Path) -> None:
    options = EngineOptions(decoders=2, gpu_memory_utilization=0.6)
    assert decoder_service.config.parse(["--model=x", *options.decoder_args()]).gpu_memory_utilization == 0.3
    addresses = options.stack(tmp_path).addresses
    assert (len(addresses.encoders), len(addresses.decoders)) == (2, 2)
    assert len(EngineOptions(decoders=2, encoders=3).stack(tmp_path).addresses.encoders) == 3


def test_ports_of_further_processes_follow_those_of_the_first() -> None:
    addresses = Addresses.tcp("0.0.0.0", encoder=6000, decoder=7000, encoders=3, decoders=2)
    assert addresses.encoders == ("127.0.0.1:6000", "127.0.0.1:6010", "127.0.0.1:6020")
    assert addresses.decoders == ("127.0.0.1:7000", "127.0.0.1:7010")
    with pytest.raises(InvalidRequest, match="port 65540"):
        Addresses.tcp(encoder=65530, encoders=2)


@pytest.mark.parametrize(
    ("host", "expected"),
    [("0.0.0.0", "0.0.0.0:6000"), ("::1", "[::1]:6000"), ("name.test", "name.test:6000")],
)
def test_only_the_gateway_listens_where_others_get_in(host: str, expected: str) -> None:
    addresses = Addresses.tcp(host, gateway=6000)
    assert addresses.gateways == (expected,)
    assert (*addresses.encoders, *addresses.decoders) == ("127.0.0.1:50052", "127.0.0.1:50053")


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ({"gateways": 0}, "gateways 0"),
        ({"encoders": 0}, "encoders 0"),
        ({"decoders": -1}, "decoders -1"),
        ({"encoders": 1, "decoders": 2}, "2 decoders need as many encoders, not 1"),
    ],
)
def test_counts_that_cannot_be_are_refused(counts: dict[str, int], reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        EngineOptions(**counts)  # type: ignore[arg-type]
