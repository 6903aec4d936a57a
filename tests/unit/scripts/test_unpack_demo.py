"""The bundled weights: packed and unpacked without loss, and anew when the packed ones change."""

from __future__ import annotations

import os
from pathlib import Path

from scripts.unpack_demo import pack, unpack


def test_weights_come_back_as_they_were(tmp_path: Path) -> None:
    weights = bytes(range(256)) * 300
    (tmp_path / "model.pt").write_bytes(weights)
    packed = pack(tmp_path)
    assert packed.stat().st_size < len(weights)
    (tmp_path / "model.pt").unlink()
    assert unpack(tmp_path).read_bytes() == weights
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pt", "model.pt.xz"]


def test_newer_packed_weights_replace_older_ones(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"new weights")
    packed = pack(tmp_path)
    (tmp_path / "model.pt").write_bytes(b"old weights")
    os.utime(tmp_path / "model.pt", (0, packed.stat().st_mtime - 10))
    assert unpack(tmp_path).read_bytes() == b"new weights"
