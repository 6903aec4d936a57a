"""What local services are told about devices."""

from __future__ import annotations

import pytest

import decoder_service.config
import encoder_service.config
from tandem.errors import InvalidRequest
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


def test_gateways_are_what_was_asked_for_and_at_least_one() -> None:
    assert EngineOptions(gateways=3).gateway_count(cores=2) == 3
    with pytest.raises(InvalidRequest, match="gateways 0"):
        EngineOptions(gateways=0).gateway_count(cores=2)
