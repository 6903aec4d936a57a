"""What limits the services on one machine: passes with other settings, and where the processes spend time.

    python -m benchmarks.sweep [--model DIR] [--json FILE] [--profile DIR] [--smoke]

Decoder and encoder start once; gateways start anew for each group of passes. Every pass gets recordings that
no cache has seen. With --profile (needs py-spy) two more passes are sampled and their stacks kept there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from benchmarks import profiling, side_by_side, workload
from benchmarks.passes import Load, Results, one_pass, profiled_pass
from benchmarks.stack import more_encoders, more_gateways, running, watched
from tandem.launcher import Stack


@dataclass(frozen=True, slots=True)
class Group:
    """Passes with the same gateways and encoders; 0 workers are as many as benchmarks.stack chooses."""

    gateways: int
    workers: int
    loads: tuple[Load, ...]
    encoders: int = 1

    def label(self, load: Load) -> str:
        parts = [
            load.way,
            f"{self.gateways} x {self.workers or 'usual'} workers",
            f"{load.in_flight} in flight",
        ]
        parts += [f"{load.processes} clients"] if load.way == "grpc" else []
        parts += [f"{self.encoders} encoders"] if self.encoders > 1 else []
        return ", ".join([*parts, *(["speakers"] if load.speakers else [])])

    def flags(self) -> list[str]:
        return ["--audio-workers", str(self.workers)] if self.workers else []


def groups(cores: int) -> list[Group]:
    """In-flight counts and clients with one gateway, more workers, more gateways, more encoders."""
    grpc, sdk = Load(), Load("sdk", in_flight=128)
    many = replace(grpc, in_flight=184, processes=4)
    half, most = max(2, cores // 2), max(3, cores - 2)
    return [
        Group(
            1,
            half,
            (
                replace(grpc, in_flight=64),
                replace(grpc, in_flight=128),
                replace(grpc, in_flight=184),
                many,
                sdk,
                replace(sdk, speakers=True),
            ),
        ),
        Group(1, most, (replace(many, in_flight=128), sdk)),
        Group(2, max(2, most // 2), (many, replace(many, speakers=True))),
        Group(4, max(2, most // 4), (many,)),
        *(Group(6, max(1, most // 7), (many, many), encoders) for encoders in (1, 2, 3)),
    ]


def prepare(setup: side_by_side.Setup, number: int, profiles: int) -> Iterator[Path]:
    """Folders of recordings, written side by side; those for profiles, the last ones, are twice as long."""
    work = setup.work
    longer = replace(work, files=2 * work.files, seconds=2 * work.seconds)
    works = [
        replace(longer if index >= number else work, seed=index + 1) for index in range(number + profiles)
    ]
    folders = [setup.root / f"sweep-{index}" for index in range(len(works))]
    workload.write_all(folders, works)
    return iter(folders)


def sweep(setup: side_by_side.Setup, wanted: list[Group], results: Results, profile: Path | None) -> None:
    """Raises LaunchError when the tiers do not start; passes that fail are noted in `results`."""
    folders = prepare(setup, sum(len(group.loads) for group in wanted) + 1, 2 if profile else 0)
    with running(setup.services) as stack:
        warm = Load(in_flight=setup.in_flight)
        one_pass("warm-up", warm, [stack.address], next(folders), watched(stack))
        for group in wanted:
            results.attempt(
                f"{group.gateways} gateways", partial(run_group, setup, stack, group, folders, results)
            )
        if profile is not None:
            results.attempt("profile", partial(run_profiles, setup, stack, wanted[0], folders, profile))


def run_group(
    setup: side_by_side.Setup, stack: Stack, group: Group, folders: Iterator[Path], results: Results
) -> None:
    with (
        more_encoders(setup.services, stack, group.encoders - 1) as encoders,
        more_gateways(setup.services, stack, group.gateways, group.flags(), encoders) as gateways,
    ):
        servers, tiers = [tier.address for tier in gateways], watched(stack, gateways, encoders)
        for load in group.loads:
            name = group.label(load)
            results.attempt(name, partial(one_pass, name, load, servers, next(folders), tiers))
            for tier in stack.tiers:
                tier.check_alive()


def run_profiles(
    setup: side_by_side.Setup, stack: Stack, group: Group, folders: Iterator[Path], keep: Path
) -> None:
    """Once every thread that runs, once those that hold the GIL."""
    seconds = 1 if setup.work.files < 100 else 5
    with more_gateways(setup.services, stack, group.gateways, group.flags()) as gateways:
        servers, tiers = [tier.address for tier in gateways], watched(stack, gateways)
        for gil, name in ((True, "gil"), (False, "running")):
            load = Load(in_flight=128)
            lines = profiled_pass(
                load, servers, next(folders), tiers, gil=gil, seconds=seconds, keep=keep / name
            )
            text = "\n".join(lines)
            (keep / f"{name}.txt").write_text(text + "\n", encoding="utf-8")
            print(f"== profile, {name} threads\n{text}", flush=True)


def main() -> int:
    parser = side_by_side.parser(__doc__ or "")
    parser.add_argument("--profile", type=Path, help="folder for stacks; unset profiles nothing")
    options = side_by_side.checked(parser.parse_args())
    if options.profile and not profiling.find():
        print("py-spy is not installed: no profiles", file=sys.stderr)
        options.profile = None
    results = Results(options.json)
    with side_by_side.prepared(options) as setup:
        results.attempt("sweep", partial(sweep, setup, groups(os.cpu_count() or 1), results, options.profile))
    print(results.table())
    return 1 if results.failures else 0


if __name__ == "__main__":
    sys.exit(main())
