"""What NVIDIA GPUs do and hold; nothing where there is no NVIDIA driver."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterator

_READ = ["--format=csv,noheader,nounits"]


def gpu_mib() -> dict[int, int]:
    """MiB that each process holds on all GPUs."""
    command = ["nvidia-smi", "--query-compute-apps=pid,used_memory", *_READ]
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


def gpu_names(*more: str) -> list[str]:
    """Of all GPUs, in the order of their numbers, each followed by what `more` asks nvidia-smi for."""
    command = ["nvidia-smi", f"--query-gpu={','.join(('name', *more))}", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")[:-1]
    except (FileNotFoundError, subprocess.CalledProcessError):
        return []


@contextlib.contextmanager
def gpu_percent(interval_ms: int = 200) -> Iterator[dict[str, float]]:
    """The share of time in which some kernel ran on each GPU, in percent; filled when the context is left."""
    found: dict[str, float] = {}
    command = ["nvidia-smi", "--query-gpu=index,utilization.gpu", *_READ, "-lms", str(interval_ms)]
    with tempfile.TemporaryFile("w+") as output:
        try:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL)
        except FileNotFoundError:
            yield found
            return
        try:
            yield found
        finally:
            process.terminate()
            process.wait()
        output.seek(0)
        values = defaultdict(list)
        for line in output:
            index, _, percent = line.partition(",")
            if percent.strip().isdigit():
                values[f"gpu{index}"].append(int(percent))
        found |= {name: sum(each) / len(each) for name, each in values.items()}
