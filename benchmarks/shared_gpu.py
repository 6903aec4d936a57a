"""Whether encoders outlive sharing their GPU with a decoder, and which kinds of them do.

    python -m benchmarks.shared_gpu [--kinds plain cuda-graphs=false] [--encoders 3] [--each 60] [--rounds 2]
                                    [--gateways 6] [--smoke]

One decoder stays; encoders of each kind start by turns and get recordings, with and without speakers, for
--each seconds or until one of them loses its device. Such a one leaves a dump of the GPU, of which cuda-gdb
tells the kernel; what the kernel's log has of the GPU comes last. Kinds are plain, or flags and variables of
the environment with commas between them: cuda-graphs=false,CUDA_X=1. Exits with status 1 when any was lost.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

from benchmarks import side_by_side
from benchmarks.gpu_use import gpu_names
from benchmarks.passes import Load
from benchmarks.report import table
from benchmarks.stack import Process, encode_everything, more_decoders, more_encoders, more_gateways

_LOST = b"the device failed"
_LOOK_SECONDS = 0.2
_END_SECONDS = 20.0
"""Within which a process that lost its device ends by itself."""
_DUMP = "skip_nonrelocated_elf_images,skip_global_memory,skip_shared_memory,skip_local_memory,skip_abort"
"""No memory but the kernels' code: a quarter of a gigabyte. The process goes on afterwards."""


@dataclass(slots=True)
class Kind:
    """What encoders were started with, and what became of them."""

    text: str
    started: int = 0
    lost: int = 0
    seconds: float = 0.0
    """Under load, of all together."""

    @property
    def flags(self) -> list[str]:
        return [f"--{word}" for word in self._words() if not word.partition("=")[0].isupper()]

    @property
    def environment(self) -> dict[str, str]:
        pairs = (word.partition("=") for word in self._words())
        return {name: value for name, _, value in pairs if name.isupper()}

    def _words(self) -> list[str]:
        return [] if self.text == "plain" else self.text.split(",")

    def line(self) -> dict[str, str]:
        return {
            "kind": self.text,
            "started": f"{self.started}",
            "lost": f"{self.lost}",
            "seconds under load": f"{self.seconds:,.0f}",
        }


def is_lost(encoder: Process) -> bool:
    """Whether it has ended, or says that it has to."""
    log = encoder.tier.log_path
    return encoder.tier.process.poll() is not None or (log is not None and _LOST in log.read_bytes())


def serve(servers: Sequence[str], encoders: Sequence[Process], folders: Sequence[Path], until: float) -> int:
    """Send recordings until then (time.monotonic()), or one is lost; returns how many are."""
    loads = [Load(in_flight=flight, speakers=voices) for voices in (False, True) for flight in (92, 32)]
    passes = zip(itertools.cycle(loads), itertools.cycle(folders), strict=False)

    def goes_on() -> bool:
        return time.monotonic() < until and not any(map(is_lost, encoders))

    # Two clients, of which one sends while the other starts.
    with _Client(*next(passes), servers) as first, _Client(*next(passes), servers) as second:
        while goes_on():
            for client in (first, second):
                if client.has_ended:
                    client.start(*next(passes))
            time.sleep(_LOOK_SECONDS)
    return sum(map(is_lost, encoders))


class _Client:
    """A process that sends a folder once; neither it nor those that it starts outlive the context."""

    def __init__(self, load: Load, folder: Path, servers: Sequence[str]) -> None:
        self._servers = servers
        self.start(load, folder)

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def start(self, load: Load, folder: Path) -> None:
        silent, command = subprocess.DEVNULL, load.command(self._servers, folder)
        self._process = subprocess.Popen(command, stdout=silent, stderr=silent, start_new_session=True)

    def __enter__(self) -> _Client:
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(ProcessLookupError):  # all of them have ended by themselves
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def how_they_end(encoders: Sequence[Process]) -> Iterator[str]:
    """Of each that lost its device: its exit status, 1 when it ended in order."""
    until = time.monotonic() + _END_SECONDS
    for encoder in filter(is_lost, encoders):
        try:
            status = encoder.tier.process.wait(max(0.1, until - time.monotonic()))
            yield f"{encoder.tier.name} ended with status {status}"
        except subprocess.TimeoutExpired:
            yield f"{encoder.tier.name} did not end by itself"


def dumping(folder: Path) -> dict[str, str]:
    """The environment of processes that leave a dump of the GPU there when a kernel of theirs goes astray."""
    folder.mkdir(parents=True, exist_ok=True)
    return {
        "CUDA_ENABLE_COREDUMP_ON_EXCEPTION": "1",
        "CUDA_COREDUMP_FILE": str(folder / "%p.nvcudmp"),
        "CUDA_COREDUMP_GENERATION_FLAGS": _DUMP,
    }


def read_dumps(folder: Path) -> Iterator[str]:
    """What cuda-gdb says of each: the kernels that ran, and where the one that failed stood."""
    debugger = shutil.which("cuda-gdb", path=f"{os.environ.get('PATH', '')}:/usr/local/cuda/bin")
    for dump in sorted(folder.glob("*.nvcudmp")):
        yield f"{dump} ({dump.stat().st_size / 2**20:.1f} MiB)"
        if debugger is None:
            yield "no cuda-gdb here to read it"
            continue
        asked = [f"target cudacore {dump}", "info cuda kernels", "print $errorpc", "x/8i $errorpc-64"]
        command = [debugger, "-batch", *(word for one in asked for word in ("-ex", one))]
        found = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        yield found.stdout + found.stderr


def study(setup: side_by_side.Setup, kinds: Sequence[Kind], each: float) -> None:
    """Start and load each kind, `setup.rounds` times, by turns."""
    encode_everything()
    services, dumps = replace(setup.services, decoders=1), dumping(setup.root / "dumps")
    folders = [setup.recordings(f"shared-{seed}", 7000 + seed, setup.work.files // 2) for seed in range(4)]
    with more_decoders(services, [], 1) as decoders:
        for kind in [*kinds] * setup.rounds:
            flags = [*services.extra.get("encoder", ()), *kind.flags]
            own = replace(services, extra={**services.extra, "encoder": flags})
            with (
                mock.patch.dict(os.environ, dumps | kind.environment),
                more_encoders(own, [], services.encoders, decoders) as encoders,
                more_gateways(services, services.gateways, encoders) as gateways,
            ):
                servers = [gateway.tier.address for gateway in gateways]
                began = time.monotonic()
                lost = serve(servers, encoders, folders, began + each)
                kind.started += len(encoders)
                kind.lost += lost
                kind.seconds += len(encoders) * (time.monotonic() - began)
                print(
                    f"{kind.text}: {lost} of {len(encoders)} lost",
                    *how_they_end(encoders),
                    sep=", ",
                    flush=True,
                )


def kernel_log() -> str:
    """What the kernel's log has of NVIDIA's errors."""
    found = subprocess.run(["dmesg"], capture_output=True, text=True)
    lines = [line for line in found.stdout.splitlines() if "Xid" in line]
    return "\n".join(lines) or found.stderr.strip() or "no Xid in the kernel's log"


def main() -> int:
    parser = side_by_side.parser(__doc__ or "")
    parser.add_argument("--kinds", nargs="*", default=["plain", "cuda-graphs=false"], metavar="KIND")
    parser.add_argument("--each", type=float, default=60.0, help="seconds under load of every start")
    options = side_by_side.checked(parser.parse_args())
    kinds = [Kind(text) for text in options.kinds]
    print(*gpu_names("uuid", "driver_version"), sep="\n")
    with side_by_side.prepared(options) as setup:
        study(setup, kinds, options.each)
        print(*read_dumps(setup.root / "dumps"), sep="\n")
    print(table([kind.line() for kind in kinds]))
    print(kernel_log())
    return 1 if any(kind.lost for kind in kinds) else 0


if __name__ == "__main__":
    sys.exit(main())
