"""Metrics of tiers: counters before and after something was measured, and gauges while it runs."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

_COUNTERS = ("_total", "_sum", "_count")
_NO_GAUGES = (*_COUNTERS, "_bucket", "_created")


def counters(ports: Iterable[int]) -> dict[str, float]:
    """Totals by name and label values, summed over these ports; one that nobody listens on adds nothing."""
    return _summed(
        (".".join([name, *labels]), value)
        for port in ports
        for name, labels, value in _samples(port)
        if name.endswith(_COUNTERS)
    )


def gauges(ports: Iterable[int]) -> dict[str, float]:
    """Present values by name, summed over labels and over these ports."""
    return _summed(
        (name, value) for port in ports for name, _, value in _samples(port) if not name.endswith(_NO_GAUGES)
    )


def difference(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """What was added in between; what stayed the same is left out."""
    added = {name: value - before.get(name, 0.0) for name, value in after.items()}
    return {name: round(value, 4) for name, value in added.items() if value}


def decoder_seconds(found: Mapping[str, float]) -> float:
    """Of a decoder's counters: what it spent on its requests, waiting included."""
    return sum(found.get(f"tandem_decoder_stage_seconds_sum.{part}", 0.0) for part in ("receive", "generate"))


def _summed(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    total: dict[str, float] = defaultdict(float)
    for name, value in pairs:
        total[name] += value
    return dict(total)


def _samples(port: int) -> Iterator[tuple[str, list[str], float]]:
    """Name, label values and value of each of Tandem's own samples.

    Read by hand: the client's parser costs more processor time than what is measured here can spare.
    """
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
    except (urllib.error.URLError, OSError):
        return
    for line in text.splitlines():
        if line.startswith("tandem_"):
            sample, _, value = line.rpartition(" ")
            name, _, labels = sample.partition("{")
            yield name, labels.split('"')[1::2], float(value)
