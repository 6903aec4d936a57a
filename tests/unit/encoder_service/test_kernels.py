"""The Triton kernels, run by Triton's interpreter on the CPU, against the same steps in torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[2] / "support" / "interpreted_kernels.py"


def test_kernels_equal_their_steps_in_torch() -> None:
    """In a process of its own: Triton interprets only where it was told to before it was imported."""
    pytest.importorskip("triton", reason="CPU builds of torch come without Triton")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(TESTS)]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0 and "17 passed" in done.stdout, done.stdout
