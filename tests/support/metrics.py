"""Reads Prometheus endpoints."""

from __future__ import annotations

import httpx
from prometheus_client.parser import text_string_to_metric_families

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(port: int) -> Samples:
    """All samples of the tier whose metrics are on this port of 127.0.0.1."""
    answer = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=10).raise_for_status()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def total(samples: Samples, name: str) -> float:
    """All samples of that name together."""
    return sum(found for (this, _), found in samples.items() if this == name)


def value(samples: Samples, name: str, **labels: str) -> float:
    """One sample; 0 when there is none."""
    return samples.get((name, frozenset(labels.items())), 0.0)
