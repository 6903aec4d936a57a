"""Studies that share one start of the tiers, which takes longer than they do.

    python -m benchmarks.studies tandem growth live [--model DIR] [--json FILE] [--smoke]

tandem: that part of benchmarks.side_by_side. growth: benchmarks/growth.py. live: benchmarks/live_load.py.
What one of them loses, the others keep.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

from benchmarks import growth, live_load, side_by_side
from benchmarks.passes import Results
from benchmarks.stack import behind, running

STUDIES = {"tandem": side_by_side.tandem_passes, "growth": growth.study, "live": live_load.study}


def run(setup: side_by_side.Setup, names: Sequence[str], results: Results) -> None:
    """Raises LaunchError when the tiers do not start."""
    with running(setup.services) as stack, behind(setup.services, stack) as there:
        for name in names:
            print(f"== {name}", flush=True)
            results.attempt(name, partial(STUDIES[name], setup, there, results))


def main() -> int:
    parser = side_by_side.parser(__doc__ or "")
    parser.add_argument("studies", nargs="+", choices=list(STUDIES))
    options = side_by_side.checked(parser.parse_args())
    results = Results(options.json)
    with side_by_side.prepared(options) as setup:
        results.attempt("start", partial(run, setup, options.studies, results))
    print(results.table())
    return 1 if results.failures else 0


if __name__ == "__main__":
    sys.exit(main())
