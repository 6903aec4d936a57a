"""Fixtures that several test packages share."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import pytest

from tests.support.decoding import RunningDecoder, running_decoder

_RUNNING = ("decoder", "http_services")
"""Fixtures of the whole run that start processes."""
_PACKAGES = ("clients", "docs")
"""Whose modules share one start of the services."""


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Tests that share what is dear to start go to the same process of `pytest -n`."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_company(item)))


def _company(item: pytest.Item) -> str:
    shared = [name for name in _RUNNING if name in getattr(item, "fixturenames", ())]
    if shared:
        return shared[0]
    package = item.path.parent.name
    return package if package in _PACKAGES else item.path.relative_to(item.config.rootpath).as_posix()


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
