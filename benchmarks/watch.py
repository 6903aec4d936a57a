"""What running tiers do while something is measured: processor time, counters, gauges, GPUs."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from benchmarks import metrics, processor
from benchmarks.gpu_use import gpu_mib, gpu_percent

_INTERVAL = 0.25
_MEMORY_EVERY = 4


@dataclass(frozen=True, slots=True)
class Watched:
    """A tier: its processes, not those that they start themselves, and the ports of their metrics."""

    name: str
    processes: tuple[int, ...]
    ports: tuple[int, ...] = ()

    def by_role(self) -> dict[str, list[int]]:
        """Process ids under the tier's name, and what these have started under "tier kind"."""
        found: dict[str, list[int]] = defaultdict(list)
        for main in self.processes:
            found[self.name].append(main)
            for child in processor.below(main):
                found[f"{self.name} {processor.kind(child)}"].append(child)
        return dict(found)


@dataclass(slots=True)
class Seen:
    """Complete when watching() is left.

    processor: seconds by role; busiest: of the busiest single thread. counters: what was added, by tier.
    peaks and means: of gauges by tier, and of "ROLE host_mib", the memory of a role's processes. gpu_mib: at
    the end, by role. gpu_percent: share of time in kernels.
    """

    processor: dict[str, float] = field(default_factory=dict)
    busiest: dict[str, float] = field(default_factory=dict)
    counters: dict[str, dict[str, float]] = field(default_factory=dict)
    peaks: dict[str, float] = field(default_factory=dict)
    means: dict[str, float] = field(default_factory=dict)
    gpu_mib: dict[str, int] = field(default_factory=dict)
    gpu_percent: dict[str, float] = field(default_factory=dict)


@contextlib.contextmanager
def watching(tiers: Sequence[Watched]) -> Iterator[Seen]:
    """Watches from a thread of this process, at little cost to it."""
    seen, series = Seen(), _Series(tiers)
    before = [metrics.counters(tier.ports) for tier in tiers]
    threads = _threads(tiers)
    with gpu_percent() as seen.gpu_percent, series.sampled():
        yield seen
    for role, used in _threads(tiers).items():
        spent = [used[each] - threads.get(role, {}).get(each, 0.0) for each in used]
        seen.processor[role] = round(sum(spent), 2)
        seen.busiest[role] = round(max(spent, default=0.0), 2)
    for tier, counted in zip(tiers, before, strict=True):
        seen.counters[tier.name] = metrics.difference(counted, metrics.counters(tier.ports))
    seen.peaks, seen.means = series.peaks(), series.means()
    held = gpu_mib()
    for tier in tiers:
        for role, processes in tier.by_role().items():
            if mib := sum(held.get(process, 0) for process in processes):
                seen.gpu_mib[role] = mib


def _threads(tiers: Sequence[Watched]) -> dict[str, dict[processor.Thread, float]]:
    return {
        role: processor.threads(processes)
        for tier in tiers
        for role, processes in tier.by_role().items()
        if not role.endswith(" tracker")
    }


class _Series:
    """Gauges of all tiers, read again and again."""

    def __init__(self, tiers: Sequence[Watched]) -> None:
        self._tiers = tiers
        self._values: dict[str, list[float]] = defaultdict(list)

    @contextlib.contextmanager
    def sampled(self) -> Iterator[None]:
        """Reads while the context is open."""
        done = threading.Event()
        thread = threading.Thread(target=self._read, args=(done,), name="gauges")
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _read(self, done: threading.Event) -> None:
        due, ticks = time.monotonic(), 0
        while not done.is_set():
            if ticks % _MEMORY_EVERY == 0:
                self._read_memory()
            ticks += 1
            for tier in self._tiers:
                for name, value in metrics.gauges(tier.ports).items():
                    self._values[f"{tier.name} {name}"].append(value)
            due += _INTERVAL
            done.wait(max(0.0, due - time.monotonic()))

    def _read_memory(self) -> None:
        for tier in self._tiers:
            for role, processes in tier.by_role().items():
                self._values[f"{role} host_mib"].append(processor.resident_mib(processes))

    def peaks(self) -> dict[str, float]:
        return {name: round(max(values), 3) for name, values in self._values.items()}

    def means(self) -> dict[str, float]:
        return {name: round(sum(values) / len(values), 3) for name, values in self._values.items()}
