"""What the gateway tells OpenBLAS, by processor."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.blas import configure

_WIDE = "fpu avx2 avx512f avx512dq avx512cd avx512bw avx512vl"


@pytest.mark.parametrize(
    ("vendor", "flags", "expected"),
    [
        ("AuthenticAMD", _WIDE, "SkylakeX"),
        ("AuthenticAMD", "fpu avx2", None),
        # Which of these has what, OpenBLAS knows itself.
        ("GenuineIntel", _WIDE, None),
    ],
)
def test_core_type(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, vendor: str, flags: str, expected: str | None
) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "to be restored")
    monkeypatch.delenv("OPENBLAS_CORETYPE")
    one = f"processor\t: 0\nvendor_id\t: {vendor}\nflags\t\t: {flags}\n\n"
    (tmp_path / "cpuinfo").write_text(one * 2)
    configure(tmp_path / "cpuinfo")
    assert os.environ.get("OPENBLAS_CORETYPE") == expected


def test_what_the_operator_has_set_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    (tmp_path / "cpuinfo").write_text(f"vendor_id\t: AuthenticAMD\nflags\t\t: {_WIDE}\n")
    configure(tmp_path / "cpuinfo")
    assert (os.environ["OPENBLAS_CORETYPE"], os.environ["OPENBLAS_NUM_THREADS"]) == ("Haswell", "3")


def test_without_proc_nothing_is_assumed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "to be restored")
    monkeypatch.delenv("OPENBLAS_CORETYPE")
    configure(tmp_path / "absent")
    assert "OPENBLAS_CORETYPE" not in os.environ
