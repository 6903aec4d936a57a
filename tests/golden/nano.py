"""The recorded golden data of tests/data/golden/nano, opened once for the tests beside it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

DIRECTORY = Path(__file__).parents[1] / "data" / "golden" / "nano"
RECORDINGS = ("mandarin_6s.wav", "english_9s.wav", "mandarin_206ms.wav")
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Golden:
    """Expected arrays by their key in expected.npz, recordings in order, cases by their name."""

    arrays: dict[str, FloatArray]
    clips: list[FloatArray]
    cases: dict[str, dict[str, Any]]


def load_golden() -> Golden:
    with np.load(DIRECTORY / "expected.npz") as file:
        arrays = {key: file[key] for key in file.files}
    clips = [soundfile.read(DIRECTORY / name, dtype="float32")[0] for name in RECORDINGS]
    described = json.loads((DIRECTORY / "expected.json").read_text(encoding="utf-8"))
    return Golden(arrays, clips, {case["case"]: case for case in described["cases"]})


def relative_error(actual: npt.NDArray[Any], expected: FloatArray) -> float:
    """Norm of the difference over the norm of the reference."""
    assert actual.shape == expected.shape
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))
