"""Fixtures that several test packages share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.support.decoding import RunningDecoder, running_decoder


@pytest.fixture(scope="session", autouse=True)
def derived_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Everything derived from a checkpoint goes to a folder of this run, never into the tree."""
    before = os.environ.get("TANDEM_CACHE")
    os.environ["TANDEM_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["TANDEM_CACHE"]
    else:
        os.environ["TANDEM_CACHE"] = before


@pytest.fixture(scope="session", params=["transformers", "vllm"])
def decoder(request: pytest.FixtureRequest, derived_files: None) -> Iterator[RunningDecoder]:
    """A decoder process of each engine over the golden checkpoint, in float32; one per test run."""
    with running_decoder(request.param, "--log-probs", "--max-num-seqs", "4") as running:
        yield running
