"""How many cores a process may keep busy."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tandem.cores import available_cores

MACHINE = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("max 100000", MACHINE),
        ("100000 100000", 1),
        ("50000 100000", 1),
        ("150000 100000", min(2, MACHINE)),
        ("99900000 100000", MACHINE),
        ("nonsense", MACHINE),
    ],
)
def test_the_quota_of_a_container_counts(tmp_path: Path, quota: str, expected: int) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(quota + "\n", encoding="ascii")
    assert available_cores(file) == expected


def test_without_a_quota_all_cores_count(tmp_path: Path) -> None:
    assert available_cores(tmp_path / "absent") == MACHINE
