"""Memory that processes hold on NVIDIA GPUs."""

from __future__ import annotations

import subprocess


def gpu_mib() -> dict[int, int]:
    """MiB that each process holds on all GPUs; empty where there is no NVIDIA driver."""
    command = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    except (FileNotFoundError, subprocess.CalledProcessError):
        return {}
    used: dict[int, int] = {}
    for line in lines:
        pid, _, mib = line.partition(",")
        if mib.strip().isdigit():
            used[int(pid)] = used.get(int(pid), 0) + int(mib)
    return used
