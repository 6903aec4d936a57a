"""What limits the services on one machine: passes with other settings, and where the processes spend time.

    python -m benchmarks.sweep [--sets settings processes] [--json FILE] [--profile DIR] [--smoke]

Gateways and further encoders start anew for each group of passes; decoders, which take a minute, only where a
group needs more of them or others. Every pass gets recordings that no cache has seen. With --profile (needs
py-spy) two more passes are sampled and their stacks kept there.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from benchmarks import profiling, side_by_side, workload
from benchmarks.passes import Load, Results, one_pass, profiled_pass
from benchmarks.stack import (
    Front,
    Process,
    Services,
    more_decoders,
    more_encoders,
    more_gateways,
    own,
    running,
)


@dataclass(frozen=True, slots=True)
class Group:
    """Passes with the same processes; 0 workers are as many as benchmarks.stack chooses.

    decoder_flags: of decoders that this group does not share with groups of other flags.
    """

    gateways: int
    workers: int
    loads: tuple[Load, ...]
    encoders: int = 1
    decoders: int = 1
    decoder_flags: str = ""

    @property
    def name(self) -> str:
        counts = f"{self.gateways} gateways, {self.encoders} encoders, {self.decoders} decoders"
        return f"{counts} {self.decoder_flags}".strip()

    @property
    def all_decoders(self) -> int:
        """How many there are at a time, the idle one of the stack included."""
        return self.decoders + bool(self.decoder_flags)

    def label(self, load: Load) -> str:
        parts = [
            load.way,
            f"{self.gateways} x {self.workers or 'usual'} workers",
            f"{load.in_flight} in flight",
        ]
        parts += [f"{load.processes} clients"] if load.way == "grpc" else []
        parts += [f"{self.encoders} encoders"] if self.encoders > 1 else []
        parts += [f"{self.decoders} decoders"] if self.decoders > 1 else []
        parts += [self.decoder_flags] if self.decoder_flags else []
        return ", ".join([*parts, *(["speakers"] if load.speakers else [])])

    def flags(self) -> list[str]:
        return ["--audio-workers", str(self.workers)] if self.workers else []


_MANY = Load(in_flight=184, processes=4)


def settings(cores: int) -> list[Group]:
    """In-flight counts and clients with one gateway, more workers, more gateways, more encoders."""
    grpc, sdk = Load(), Load("sdk", in_flight=128)
    half, most = max(2, cores // 2), max(3, cores - 2)
    return [
        Group(
            1,
            half,
            (
                replace(grpc, in_flight=64),
                replace(grpc, in_flight=128),
                replace(grpc, in_flight=184),
                _MANY,
                sdk,
                replace(sdk, speakers=True),
            ),
        ),
        Group(1, most, (replace(_MANY, in_flight=128), sdk)),
        Group(2, max(2, most // 2), (_MANY, replace(_MANY, speakers=True))),
        Group(4, max(2, most // 4), (_MANY,)),
        *(Group(6, max(1, most // 7), (_MANY, _MANY), encoders) for encoders in (1, 2, 3)),
    ]


def processes(cores: int) -> list[Group]:
    """Encoders and decoders that share a GPU; vLLM's own choice of CUDA graphs.

    Groups with the same decoders are neighbours.
    """
    twice = partial(Group, workers=0, loads=(_MANY, _MANY))
    return [
        twice(6, encoders=2),
        twice(6, encoders=2, decoders=2),
        twice(8, encoders=3, decoders=2),
        twice(8, encoders=4, decoders=2),
        twice(6, encoders=2, decoder_flags="--cudagraph-mode full_and_piecewise"),
    ]


SETS = {"settings": settings, "processes": processes}


class Decoders:
    """Those of one group after another, on one start of the stack; what the next group needs too stays."""

    def __init__(self, services: Services, there: Sequence[Process], resources: contextlib.ExitStack) -> None:
        self._services, self._there = services, there
        self._resources = resources
        self._flags, self._running = "", list(there)

    def of(self, group: Group) -> list[Process]:
        """Raises LaunchError when one does not start."""
        if group.decoder_flags != self._flags:
            self._resources.close()
            self._flags, self._running = group.decoder_flags, [] if group.decoder_flags else list(self._there)
        more = more_decoders(self._services, self._running, group.decoders, shlex.split(self._flags))
        self._running = self._resources.enter_context(more)
        return self._running[: group.decoders]


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
    services = replace(setup.services, decoders=max(group.all_decoders for group in wanted))
    with running(services) as stack, contextlib.ExitStack() as resources:
        at = own(stack)
        one_pass("warm-up", Load(in_flight=setup.in_flight), at.servers, next(folders), at.watched)
        decoders = Decoders(services, at.decoders, resources)
        for group in wanted:
            results.attempt(group.name, partial(run_group, services, at, decoders, group, folders, results))
        if profile is not None:
            seconds = 1 if setup.work.files < 100 else 5
            run = partial(run_profiles, services, at, wanted[0], folders, profile, seconds)
            results.attempt("profile", run)


@contextlib.contextmanager
def front(services: Services, there: Front, group: Group, decoders: Sequence[Process]) -> Iterator[Front]:
    """The group's processes; the stack's own encoder, which sends to its own decoder, where that is one."""
    services = replace(services, gateways=group.gateways)
    encoders = there.encoders if decoders[0] in there.decoders else ()
    with (
        more_encoders(services, encoders, group.encoders, decoders) as encoders,
        more_gateways(services, group.gateways, encoders, group.flags()) as gateways,
    ):
        yield Front(gateways, encoders, decoders)


def run_group(
    services: Services,
    there: Front,
    decoders: Decoders,
    group: Group,
    folders: Iterator[Path],
    results: Results,
) -> None:
    """A row for each of its loads."""
    with front(services, there, group, decoders.of(group)) as at:
        for load in group.loads:
            name = group.label(load)
            results.attempt(name, partial(one_pass, name, load, at.servers, next(folders), at.watched))
            at.check_alive()


def run_profiles(
    services: Services, there: Front, group: Group, folders: Iterator[Path], keep: Path, seconds: int
) -> None:
    """Once every thread that runs, once those that hold the GIL; with the stack's own encoder and decoder."""
    with more_gateways(services, group.gateways, there.encoders, group.flags()) as gateways:
        at = Front(gateways, there.encoders, there.decoders)
        for gil, name in ((True, "gil"), (False, "running")):
            load = Load(in_flight=128)
            lines = profiled_pass(
                load, at.servers, next(folders), at.watched, gil=gil, seconds=seconds, keep=keep / name
            )
            text = "\n".join(lines)
            (keep / f"{name}.txt").write_text(text + "\n", encoding="utf-8")
            print(f"== profile, {name} threads\n{text}", flush=True)


def main() -> int:
    parser = side_by_side.parser(__doc__ or "")
    parser.add_argument("--profile", type=Path, help="folder for stacks; unset profiles nothing")
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=["settings"], help="of groups")
    options = side_by_side.checked(parser.parse_args())
    if options.profile and not profiling.find():
        print("py-spy is not installed: no profiles", file=sys.stderr)
        options.profile = None
    results = Results(options.json)
    cores = os.cpu_count() or 1
    groups = [group for name in options.sets for group in SETS[name](cores)]
    with side_by_side.prepared(options) as setup:
        results.attempt("sweep", partial(sweep, setup, groups, results, options.profile))
    print(results.table())
    return 1 if results.failures else 0


if __name__ == "__main__":
    sys.exit(main())
