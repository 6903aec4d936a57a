"""Counters of a tier's metrics endpoint, before and after something was measured."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

_ENDINGS = ("_total", "_sum", "_count")


def scrape(port: int) -> dict[str, float]:
    """Totals by name and label values; empty when nothing listens."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
    except (urllib.error.URLError, OSError):
        return {}
    return {
        ".".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("tandem_") and sample.name.endswith(_ENDINGS)
    }


def difference(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """What was added in between; what stayed the same is left out."""
    added = {name: value - before.get(name, 0.0) for name, value in after.items()}
    return {name: round(value, 4) for name, value in added.items() if value}
