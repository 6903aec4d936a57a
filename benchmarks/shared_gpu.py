"""Whether encoders outlive sharing their GPU with a decoder, and which kinds of them do.

    python -m benchmarks.shared_gpu [--kinds plain cuda-graphs=false] [--encoders 3] [--each 60] [--rounds 2]
                                    [--gateways 6] [--smoke]

One decoder stays; encoders of each kind start by turns and get recordings, with and without speakers, for
--each seconds or until one of them loses its device. Then it says what the kernel's log has of the GPU. Kinds
are plain, or flags and variables of the environment with commas between them: cuda-graphs=false,CUDA_X=1.
Exits with status 1 when any was lost.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

from benchmarks import side_by_side
from benchmarks.passes import Load
from benchmarks.report import table
from benchmarks.stack import Process, encode_everything, more_decoders, more_encoders, more_gateways

_LOST = b"the device failed"
_LOOK_SECONDS = 0.2


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

    while goes_on():
        with _client(*next(passes), servers) as client:
            while client.poll() is None and goes_on():
                time.sleep(_LOOK_SECONDS)
    return sum(map(is_lost, encoders))


@contextlib.contextmanager
def _client(load: Load, folder: Path, servers: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """The process that sends them; it does not outlive this."""
    silent = subprocess.DEVNULL
    client = subprocess.Popen(load.command(servers, folder), stdout=silent, stderr=silent)
    try:
        yield client
    finally:
        client.terminate()
        client.wait()


def study(setup: side_by_side.Setup, kinds: Sequence[Kind], each: float) -> None:
    """Start and load each kind, `setup.rounds` times, by turns."""
    encode_everything()
    services = replace(setup.services, decoders=1)
    folders = [setup.recordings(f"shared-{seed}", 7000 + seed, setup.work.files // 2) for seed in range(4)]
    with more_decoders(services, [], 1) as decoders:
        for kind in [*kinds] * setup.rounds:
            flags = [*services.extra.get("encoder", ()), *kind.flags]
            own = replace(services, extra={**services.extra, "encoder": flags})
            with (
                mock.patch.dict(os.environ, kind.environment),
                more_encoders(own, [], services.encoders, decoders) as encoders,
                more_gateways(services, services.gateways, encoders) as gateways,
            ):
                servers = [gateway.tier.address for gateway in gateways]
                began = time.monotonic()
                lost = serve(servers, encoders, folders, began + each)
                kind.started += len(encoders)
                kind.lost += lost
                kind.seconds += len(encoders) * (time.monotonic() - began)
            print(f"{kind.text}: {lost} of {len(encoders)} lost", flush=True)


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
    with side_by_side.prepared(options) as setup:
        study(setup, kinds, options.each)
    print(table([kind.line() for kind in kinds]))
    print(kernel_log())
    return 1 if any(kind.lost for kind in kinds) else 0


if __name__ == "__main__":
    sys.exit(main())
