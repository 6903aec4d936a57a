"""One stack with the demo model on TCP for the clients of all languages, and what Python hears of it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tandem import Client, StreamOptions, stream
from tandem.launcher import Addresses, Stack, StackConfig
from tandem.live_events import Final
from tandem.results import Transcript
from tests.clients.programs import LANGUAGES, MEETING, speech, start_build
from tests.support.ports import free_port

DEMO = Path(__file__).parents[2] / "models" / "demo"


def pytest_collection_finish(session: pytest.Session) -> None:
    """Compilers begin while other tests run: installing and building takes longer than most of them."""
    here = {item.path.stem for item in session.items if item.path.parent == Path(__file__).parent}
    for language in LANGUAGES:
        if here & {f"test_{language}", "test_envoy", "test_secure"}:
            start_build(language)


@pytest.fixture(scope="session")
def services(derived_files: None) -> Iterator[Stack]:
    """The gateway on TCP, since not every client speaks Unix sockets."""
    with tempfile.TemporaryDirectory(prefix="tandem-clients-") as directory:
        root = Path(directory)
        inner = Addresses.unix(root)
        addresses = Addresses(f"127.0.0.1:{free_port()}", inner.encoder, inner.decoder)
        limits = ["--max-audio-duration", "120"]
        config = StackConfig(str(DEMO), addresses, engine="transformers", log_dir=root, gateway_args=limits)
        with Stack(config) as running:
            yield running


@pytest.fixture(scope="session")
def heard(services: Stack) -> Transcript:
    """The recording as the Python client gets it."""
    with Client(services.address) as client:
        return client.recognize(MEETING, timeout=120)


@pytest.fixture(scope="session")
def heard_live(services: Stack) -> list[Final]:
    """The speech as the Python client gets it over an unbroken connection."""
    events = stream([speech()], services.address, StreamOptions(interim=False))
    return [event for event in events if isinstance(event, Final)]
