"""FunASR's engine, the transformers engine, the SDK and the services, on one machine and in one run.

    python -m benchmarks.side_by_side [--parts tandem transformers funasr] [--json FILE] [--smoke]

Every part gets the same checkpoint (random weights of the published sizes, unless --model names another)
and recordings of the same lengths: 184 files, 11,541 s, new to every cache. Answers have 3 tokens a second.
A part that fails prints why, and the others run. --smoke is a small version, for a machine without a GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from benchmarks import published, workload
from benchmarks.passes import Load, Results, Row, one_pass
from benchmarks.stack import Front, Services, behind, front, own, parse_extra, running


@dataclass(frozen=True, slots=True)
class Setup:
    """What is measured and how. slow_files, peer_files: how many the transformers engine and FunASR's get."""

    services: Services
    root: Path
    work: workload.Workload
    in_flight: int
    client_processes: int
    rounds: int = 2
    slow_files: int = 16
    peer_files: int = 48

    def recordings(self, name: str, seed: int, files: int | None = None) -> Path:
        """A folder of files that no part has seen before."""
        work = replace(self.work, seed=seed)
        if files is not None:
            work = replace(work, files=files, seconds=work.seconds * files / work.files)
        return self.written(name, work)

    def written(self, name: str, work: workload.Workload) -> Path:
        """A folder with that workload, under `root`."""
        folder = self.root / name
        shutil.rmtree(folder, ignore_errors=True)
        workload.write(folder, work)
        return folder

    def peer_recordings(self, number: int = 0) -> Path:
        """What FunASR's engine gets; for other numbers the same, but with noise that no cache has seen."""
        return self.recordings(f"set-funasr-{number}", 201 + number, self.peer_files)


def tandem_part(setup: Setup, results: Results) -> None:
    """The services' own start, and all their passes."""
    with running(setup.services) as stack, behind(setup.services, stack) as there:
        tandem_passes(setup, there, results)


def tandem_passes(setup: Setup, there: Front, results: Results) -> None:
    """SDK and gRPC by turns on the same services, with and without speakers; the first pass warms up."""
    loads = [Load(way, setup.in_flight, setup.client_processes) for way in ("sdk", "grpc")]
    seed = 1
    with front(setup.services, there) as at:
        warm = setup.recordings("warm-up", 1000, min(32, setup.work.files))
        one_pass("warm-up", replace(loads[0], speakers=True), at.servers, warm, at.watched)
        for number in range(setup.rounds):
            for speakers, load in itertools.product((False, True), loads):
                name = f"{load.way}{' + speakers' if speakers else ''} #{number + 1}"
                folder = setup.recordings(f"set-{seed}", seed)
                wanted = replace(load, speakers=speakers)
                results.attempt(name, partial(one_pass, name, wanted, at.servers, folder, at.watched))
                at.check_alive()
                seed += 1
        for number, load in enumerate(loads):
            name, folder = f"{load.way}, FunASR's files", setup.peer_recordings(number)
            results.attempt(name, partial(one_pass, name, load, at.servers, folder, at.watched))


def transformers_part(setup: Setup, results: Results) -> None:
    """The transformers engine behind the same services, on fewer files."""
    services = replace(setup.services, engine="transformers", root=setup.root / "transformers")
    load = Load("sdk", setup.in_flight)
    with running(services) as stack:
        at = own(stack)
        one_pass("warm-up", load, at.servers, setup.recordings("warm-up-2", 1001, 2), at.watched)
        folder = setup.recordings("set-transformers", 101, setup.slow_files)
        results.add(one_pass("transformers engine", load, at.servers, folder, at.watched))


def funasr_part(setup: Setup, results: Results) -> None:
    """FunASR's engine in a process of its own (see benchmarks/funasr_peer.py)."""
    wanted = setup.services
    command = [sys.executable, "-m", "benchmarks.funasr_peer"]
    command += [str(wanted.model), str(setup.peer_recordings())]
    command += ["--device", wanted.device or "cuda:0", "--gpu-share", str(wanted.gpu_share)]
    command += ["--tokens-per-embedding", str(wanted.tokens_per_embedding)]
    found = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    for line in found.stdout.splitlines():
        if line.startswith("{"):
            results.add(Row(**json.loads(line)))


def parser(description: str) -> argparse.ArgumentParser:
    """Options that all benchmarks of this kind share; give what they parse to checked()."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="a checkpoint; unset makes a random one")
    parser.add_argument("--tokens-per-embedding", type=float, default=published.TOKENS_PER_EMBEDDING)
    parser.add_argument("--engine", default="vllm", choices=("vllm", "transformers"), help="of part tandem")
    parser.add_argument("--device", help="torch device; unset is found")
    parser.add_argument("--gpu-share", type=float, default=0.6, help="of the GPU's memory, for all decoders")
    parser.add_argument("--flags", nargs="*", default=[], metavar="TIER=FLAGS", help="more flags of a tier")
    parser.add_argument("--in-flight", type=int, default=64, help="recordings at a time")
    parser.add_argument("--client-processes", type=int, default=2)
    parser.add_argument("--gateways", type=int, default=1, help="processes that recordings are spread over")
    parser.add_argument("--encoders", type=int, default=1, help="processes that share the encoder's GPU")
    parser.add_argument("--decoders", type=int, default=1, help="processes that share the decoder's GPU")
    parser.add_argument("--rounds", type=int, default=2, help="passes of each kind")
    parser.add_argument("--slow-files", type=int, default=16, help="files for the transformers engine")
    parser.add_argument("--peer-files", type=int, default=48, help="files for FunASR's engine")
    parser.add_argument("--files", type=int, default=184)
    parser.add_argument("--seconds", type=float, default=11_541)
    parser.add_argument("--root", type=Path, help="folder for checkpoint and recordings; unset is temporary")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--smoke", action="store_true")
    return parser


def checked(options: argparse.Namespace) -> argparse.Namespace:
    """With what --smoke stands for. Ends the program where a decoder would get no work."""
    if options.encoders < options.decoders:
        sys.exit(f"{options.decoders} decoders need as many encoders, not {options.encoders}")
    if options.smoke:
        options.files, options.seconds, options.in_flight = 4, 40.0, 4
        options.rounds, options.slow_files, options.peer_files = 1, 2, 2
    return options


@contextlib.contextmanager
def prepared(options: argparse.Namespace) -> Iterator[Setup]:
    """What the options ask for, with a checkpoint and a folder for recordings."""
    with contextlib.ExitStack() as resources:
        root = options.root or Path(resources.enter_context(tempfile.TemporaryDirectory()))
        shortest, longest = (8.0, 14.0) if options.smoke else (44.0, 90.0)
        services = Services(
            model=options.model or published.ensure(root / "model", options.smoke),
            root=root / "services",
            engine=options.engine,
            device=options.device,
            gpu_share=options.gpu_share,
            tokens_per_embedding=options.tokens_per_embedding,
            gateways=options.gateways,
            encoders=options.encoders,
            decoders=options.decoders,
            extra=parse_extra(options.flags),
        )
        yield Setup(
            services=services,
            root=root,
            work=workload.Workload(options.files, options.seconds, shortest, longest),
            in_flight=options.in_flight,
            client_processes=options.client_processes,
            rounds=options.rounds,
            slow_files=options.slow_files,
            peer_files=options.peer_files,
        )


def main() -> int:
    known = {"tandem": tandem_part, "transformers": transformers_part, "funasr": funasr_part}
    wanted = parser(__doc__ or "")
    wanted.add_argument("--parts", nargs="+", choices=list(known), default=list(known))
    options = checked(wanted.parse_args())
    results = Results(options.json)
    with prepared(options) as setup:
        for part in options.parts:
            print(f"== {part}", flush=True)
            results.attempt(part, partial(known[part], setup, results))
    print(results.table())
    return 1 if results.failures else 0


if __name__ == "__main__":
    sys.exit(main())
