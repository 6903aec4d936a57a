"""`tandem plan`: how many gateways, encoders and decoders a load needs, and the Helm values that say so."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable
from typing import Any

from tandem.cli.usage import UsageError
from tandem.plan import Demand, Plan, StageCosts, Target, load_costs, make_plan
from tandem.plan.cost_file import packaged_names

_FEW, _MANY = 1e-6, 1e9
"""Of streams, hours and seconds: less is no load, more is none that a plan is made for. Between them nothing
overflows or is rounded to zero."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("plan", help="how many replicas of each tier a load needs")
    load = parser.add_argument_group("load")
    load.add_argument(
        "--live", type=_between(0, _MANY), default=0.0, help="live streams at the same time, at the peak"
    )
    load.add_argument("--hours", type=_between(0, _MANY), default=0.0, help="hours of recordings a day")
    load.add_argument(
        "--peak", type=_between(1, _MANY), default=2.0, help="recordings at the peak over the day's average"
    )
    load.add_argument(
        "--recording", type=_between(0.01, _MANY), default=60.0, help="seconds of one recording, on average"
    )
    target = parser.add_argument_group("target")
    target.add_argument(
        "--utilization", type=_between(0.001, 0.999), default=0.7, help="that no tier exceeds at the peak"
    )
    target.add_argument(
        "--latency-ms",
        type=_between(0, _MANY),
        help="95 %% of segments are encoded and decoded within this time",
    )
    target.add_argument("--spare", type=_count, default=0, help="replicas of each tier that may be lost")
    known = ", ".join(packaged_names())
    parser.add_argument(
        "--costs", default="cpu-demo", help=f"measured stage costs: a file, or one of {known}"
    )
    parser.add_argument("--format", choices=("table", "json", "helm"), default="table")
    parser.set_defaults(run=run)


def _count(text: str) -> int:
    """The value of a flag that may be zero."""
    if (value := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"{value} is less than 0")
    return value


def _between(low: float, high: float) -> Callable[[str], float]:
    """The type of a flag with limits."""

    def number(text: str) -> float:
        value = float(text)
        # Asked this way round because nan is on neither side of anything.
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not between {low:g} and {high:g}")
        return value

    return number


def run(options: argparse.Namespace) -> int:
    """Prints the plan: a table with the values under it, everything as JSON, or only the values."""
    if options.live + options.hours < _FEW:
        raise UsageError("a plan needs live streams or hours of recordings: give --live or --hours")
    costs = load_costs(options.costs)
    demand = Demand(options.live, options.hours, options.peak, options.recording)
    latency = None if options.latency_ms is None else options.latency_ms / 1000
    plan = make_plan(costs, demand, Target(options.utilization, latency, options.spare))
    values = helm_values(plan, costs)
    if options.format == "json":
        record = {"about": costs.about, "demand": dataclasses.asdict(demand), **dataclasses.asdict(plan)}
        print(json.dumps({**record, "latency": plan.latency, "values": values}, indent=2))
    elif options.format == "helm":
        print(_yaml(values), end="")
    else:
        print(table(plan))
        print(f"\n# costs: {options.costs} ({costs.about.get('machine', 'unknown machine')})")
        print(f"# values for helm upgrade -f\n{_yaml(values)}", end="")
    return 0


def table(plan: Plan) -> str:
    """One line for each tier, for people."""
    rows = [f"{'tier':<10}{'replicas':>9}{'GPUs':>6}{'busy at peak':>14}{'p95 ms':>9}"]
    for name in ("gateway", "encoder", "decoder"):
        tier = getattr(plan, name)
        time = f"{tier.latency * 1000:.0f}" if tier.latency else ""
        rows.append(f"{name:<10}{tier.replicas:>9}{tier.gpus:>6}{tier.utilization:>14.0%}{time:>9}")
    rows.append(f"{'':<19}{plan.gpus:>6}{'':>14}{plan.latency * 1000:>9.0f}")
    rows.append(f"a gateway: {plan.cores} cores, {plan.audio_workers} audio workers")
    return "\n".join(rows)


def helm_values(plan: Plan, costs: StageCosts) -> dict[str, Any]:
    """Values of deploy/helm/tandem."""
    engine = "vllm" if costs.decoder.gpus else "transformers"
    return {
        "gateway": {
            "replicas": plan.gateway.replicas,
            "audioWorkers": plan.audio_workers,
            "maxSessions": plan.max_sessions,
            "resources": {"requests": {"cpu": str(plan.cores)}},
        },
        "encoder": {"replicas": plan.encoder.replicas, "gpus": costs.encoder.gpus},
        "decoder": {
            "replicas": plan.decoder.replicas,
            "engine": engine,
            "tensorParallel": costs.decoder.gpus,
        },
    }


def _yaml(values: dict[str, Any], indent: str = "") -> str:
    """Mappings of numbers and strings; a client has no YAML library."""
    lines = (
        f"{indent}{name}:\n{_yaml(value, indent + '  ')}"
        if isinstance(value, dict)
        else f"{indent}{name}: {json.dumps(value)}\n"
        for name, value in values.items()
    )
    return "".join(lines)
