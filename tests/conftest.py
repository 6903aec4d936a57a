"""Fixtures that several test packages share."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from tandem.local import demo_directory
from tests.support.decoding import RunningDecoder, running_decoder
from tests.support.http import HttpStack, http_stack
from tests.support.recordings import vad_weights
from tests.support.scheduling import ByServices
from tests.support.secure import SecureStack, secure_stack
from tests.support.services import NANO


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByServices:
    return ByServices(config, log)


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


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Ctrl-C works here and in what the tests start, also where a shell's background job runs them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", params=["transformers", "vllm"])
def decoder(request: pytest.FixtureRequest, derived_files: None) -> Iterator[RunningDecoder]:
    """A decoder process of each engine over the golden checkpoint, in float32; one per test run."""
    with running_decoder(request.param, "--log-probs", "--max-num-seqs", "4", "--vllm-metrics") as running:
        yield running


@pytest.fixture(scope="session")
def demo_services(derived_files: None) -> Iterator[HttpStack]:
    """The bundled model."""
    arguments = ["--vad-model", str(vad_weights())]
    with http_stack(demo_directory(), arguments, ["--max-model-len", "2048"]) as running:
        yield running


@pytest.fixture(scope="session")
def secure_services(derived_files: None) -> Iterator[SecureStack]:
    """Mutual TLS between all tiers and API keys in front. Who changes its files puts them back."""
    with secure_stack(NANO) as running:
        yield running
