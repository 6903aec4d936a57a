"""What OpenBLAS has to be told before numpy loads it. Audio workers inherit it."""

from __future__ import annotations

import os
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_WIDE = {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}


def configure(cpuinfo: Path = _CPUINFO) -> None:
    """Sets what the operator has not set."""
    # Every core has a process or a thread of the gateway's own; matrix products that spread out over all of
    # them would only get in the way.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # OpenBLAS 0.3.30 takes an AMD processor newer than itself for one without AVX-512: half the speed.
    if _is_wide_amd(cpuinfo):
        os.environ.setdefault("OPENBLAS_CORETYPE", "SkylakeX")


def _is_wide_amd(cpuinfo: Path) -> bool:
    """Whether the processor is AMD's and has the AVX-512 instructions that OpenBLAS uses."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    first = text.split("\n\n", 1)[0]
    fields = dict(line.split(":", 1) for line in first.splitlines() if ":" in line)
    values = {name.strip(): value.strip() for name, value in fields.items()}
    return values.get("vendor_id") == "AuthenticAMD" and set(values.get("flags", "").split()) >= _WIDE
