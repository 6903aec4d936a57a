"""The recordings under tests/data, and the fetched weights, by name."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from scripts.fetch_models import PACKAGES, fetch

DATA = Path(__file__).parents[1] / "data"


def recording_path(name: str) -> Path:
    """The file of a recording, for example "mandarin_6s.wav"."""
    found = [path for path in (DATA / "audio" / name, DATA / "golden" / "nano" / name) if path.is_file()]
    return found[0]


@cache
def recording(name: str) -> npt.NDArray[np.float32]:
    """Samples of a recording, float32 [n] at 16 kHz in [-1, 1]."""
    samples, rate = soundfile.read(recording_path(name), dtype="float32")
    assert rate == 16000
    return np.asarray(samples, dtype=np.float32)


@cache
def vad_weights() -> Path:
    """The directory of FSMN-VAD's weights, fetched first where `make setup` has not run."""
    return _fetched("vad")


@cache
def speaker_weights() -> Path:
    """The directory of CAM++'s weights, fetched first where `make setup` has not run."""
    return _fetched("speaker")


def _fetched(directory: str) -> Path:
    return fetch(next(package for package in PACKAGES if package.directory == directory))
