"""Services that the tests of several modules share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tandem.launcher import Stack
from tests.support.http import HttpStack, http_stack
from tests.support.live import live_stack
from tests.support.recordings import recording_path, vad_weights
from tests.support.services import NANO

MAX_AUDIO_BYTES = 4_000_000


@pytest.fixture(scope="session")
def http_services(derived_files: None) -> Iterator[HttpStack]:
    """The golden checkpoint (its texts are noise, but always the same), recordings up to 4 MB."""
    limits = ["--max-audio-bytes", str(MAX_AUDIO_BYTES), "--vad-model", str(vad_weights())]
    with http_stack(NANO, limits, ["--max-model-len", "1024"]) as running:
        yield running


@pytest.fixture(scope="session")
def live_services(derived_files: None) -> Iterator[Stack]:
    """The golden checkpoint with every port that live audio comes in by."""
    with live_stack(realtime=True, http=True) as running:
        yield running


@pytest.fixture
def http(http_services: HttpStack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=http_services.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def english() -> Path:
    """Nine seconds of English, one segment."""
    return recording_path("english_9s.wav")


@pytest.fixture(scope="session")
def meeting() -> Path:
    """Three and a half minutes of four speakers."""
    return recording_path("meeting_4spk.flac")


@pytest.fixture(scope="session")
def dialogue() -> Path:
    """A minute of two speakers, several segments."""
    return recording_path("dialogue_2spk.flac")
