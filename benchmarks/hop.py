"""What the hop between encoder and decoder costs: the two tiers against both in one process, by turns.

    python -m benchmarks.hop [--in-flight 184] [--levels 1 8 32 184] [--gateways 6] [--one-process-first]
                             [--json FILE] [--smoke]

One encoder and one decoder process, and one process that is both (benchmarks.one_tier), each with half of the
decoders' memory and gateways of its own; they run one after the other on the same recordings, which neither
has seen. Levels of load are the growth study's. Each process keeps a speed of its own, 10 % more or less for
vLLM's core with one recording at a time: --one-process-first starts the two sides in the other order.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks import side_by_side
from benchmarks.growth import smaller
from benchmarks.passes import Load, Results, Row, one_pass
from benchmarks.stack import Front, more_gateways, one_tier, own, running

TWO, ONE = SIDES = "two tiers", "one process"
_SHARES = {1: 1 / 12, 8: 1 / 4, 32: 1 / 2}
"""Recordings at a time, and how much of the usual set is sent so; the whole set with as many as asked for."""


def study(setup: side_by_side.Setup, only: Sequence[int], one_first: bool, results: Results) -> None:
    """Rows whose detail says `tiers` and `at`; `only` those levels, where it has some."""
    services = replace(setup.services, gpu_share=setup.services.gpu_share / 2, encoders=1, decoders=1)
    each = services.gateways
    with contextlib.ExitStack() as started:
        alone = started.enter_context(one_tier(services)) if one_first else []
        stack = started.enter_context(running(services))
        alone = alone or started.enter_context(one_tier(services))
        before_two = started.enter_context(more_gateways(services, each, own(stack).encoders))
        before_one = started.enter_context(more_gateways(services, each, alone, first=each))
        sides = {
            TWO: Front(before_two, own(stack).encoders, own(stack).decoders),
            ONE: Front(before_one, alone, ()),
        }
        levels = {at: _SHARES.get(at, 1.0) for at in only or (*_SHARES, setup.in_flight)}
        warm = setup.recordings("hop-warm-up", 4000, min(32, setup.work.files))
        for side in sides.values():
            one_pass("warm-up", Load(in_flight=setup.in_flight), side.servers, warm, side.watched)
        for number in range(setup.rounds):
            for at, share in levels.items():
                folder = setup.written(f"hop-{at}", smaller(setup.work, share, 4100 + 100 * number + at))
                load = Load(in_flight=at, processes=min(at, setup.client_processes))
                by_turns(sides, load, folder, number, results)


def by_turns(sides: Mapping[str, Front], load: Load, folder: Path, number: int, results: Results) -> None:
    """The same recordings to each side, every second round in the other order."""
    names = list(sides)[:: -1 if number % 2 else 1]
    for name in names:
        label = f"{name}, {load.in_flight} in flight #{number + 1}"
        results.attempt(label, partial(run, label, name, load, sides[name], folder))
        sides[name].check_alive()


def run(label: str, name: str, load: Load, side: Front, folder: Path) -> Row:
    """One pass of one side."""
    row = one_pass(label, load, side.servers, folder, side.watched)
    row.detail |= {"tiers": name, "at": load.in_flight}
    return row


def main() -> int:
    parser = side_by_side.parser(__doc__ or "")
    parser.add_argument(
        "--levels", type=int, nargs="*", default=[], help="recordings at a time; unset is all"
    )
    parser.add_argument(
        "--one-process-first", action="store_true", help="of the two sides it starts before the other"
    )
    options = side_by_side.checked(parser.parse_args())
    results = Results(options.json)
    with side_by_side.prepared(options) as setup:
        results.attempt("hop", partial(study, setup, options.levels, options.one_process_first, results))
    print(results.table())
    return 1 if results.failures else 0


if __name__ == "__main__":
    sys.exit(main())
