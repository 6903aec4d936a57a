"""The three services as benchmarks run them: forced answers, room for the workload, metrics, logs kept."""

from __future__ import annotations

import contextlib
import os
import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import processor, published
from benchmarks.gpu_memory import gpu_mib
from benchmarks.metrics import difference, scrape
from tandem.launcher import Addresses, Stack, StackConfig

METRICS_PORTS = {"gateway": 9461, "encoder": 9462, "decoder": 9463}


@dataclass(frozen=True, slots=True)
class Services:
    """What to start. `extra` holds flags for single tiers, which win over those chosen here."""

    model: Path
    root: Path
    engine: str = "vllm"
    device: str | None = None
    gpu_share: float = 0.6
    tokens_per_embedding: float = published.TOKENS_PER_EMBEDDING
    """0 lets the model end its answers."""
    queued_seconds: float = 24_000.0
    extra: dict[str, Sequence[str]] = field(default_factory=dict)

    def flags(self, tier: str) -> list[str]:
        """Command-line flags of a tier."""
        speakers = published.speaker_directory(self.model)
        device = ["--device", self.device] if self.device else []
        own = {
            "gateway": ["--audio-workers", str(max(2, (os.cpu_count() or 2) // 2)), "--max-sessions", "4096"],
            "encoder": [
                *device,
                *("--max-queued-seconds", str(self.queued_seconds)),
                *("--speaker-model", str(speakers) if speakers.is_dir() else "auto"),
            ],
            "decoder": [
                *device,
                *("--gpu-memory-utilization", str(self.gpu_share)),
                *("--forced-tokens-per-embedding", str(self.tokens_per_embedding)),
                *("--max-waiting-requests", "8192"),
            ],
        }
        port = str(METRICS_PORTS[tier])
        return [*own[tier], "--metrics-port", port, *self.extra.get(tier, ())]

    def config(self) -> StackConfig:
        """Sockets and logs lie in `root`."""
        self.root.mkdir(parents=True, exist_ok=True)
        return StackConfig(
            model=str(self.model),
            addresses=Addresses.unix(self.root),
            engine=self.engine,
            encoder_args=self.flags("encoder"),
            decoder_args=self.flags("decoder"),
            gateway_args=self.flags("gateway"),
            log_dir=self.root,
            start_timeout=400.0,
        )


def parse_extra(texts: Sequence[str]) -> dict[str, Sequence[str]]:
    """Flags of tiers from strings like "encoder=--max-batch-items 128". Raises ValueError for no tier."""
    found: dict[str, Sequence[str]] = {}
    for text in texts:
        tier, _, flags = text.partition("=")
        if tier not in METRICS_PORTS:
            raise ValueError(f"{tier!r} is not one of {', '.join(METRICS_PORTS)}")
        found[tier] = shlex.split(flags)
    return found


@contextlib.contextmanager
def running(services: Services) -> Iterator[Stack]:
    """The stack, ready; says how long its start took."""
    started = time.perf_counter()
    with Stack(services.config()) as stack:
        print(f"{services.engine} services ready after {time.perf_counter() - started:.0f} s", flush=True)
        yield stack


@dataclass(slots=True)
class Spent:
    """Seconds of processor time, counters and MiB on GPUs, by tier."""

    processor: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    gpu_mib: dict[str, int] = field(default_factory=dict)


@contextlib.contextmanager
def spending(stack: Stack) -> Iterator[Spent]:
    """What the tiers use while the context is open; complete once it is left."""
    spent = Spent()
    processor, counters = _processor(stack), _counters()
    yield spent
    spent.processor = difference(processor, _processor(stack))
    spent.metrics = {tier: difference(counters[tier], found) for tier, found in _counters().items()}
    used = gpu_mib()
    spent.gpu_mib = {
        name: sum(used.get(process, 0) for process in processes)
        for name, processes in _processes(stack).items()
    }


def _processor(stack: Stack) -> dict[str, float]:
    return {name: processor.seconds(processes) for name, processes in _processes(stack).items()}


def _processes(stack: Stack) -> dict[str, list[int]]:
    return {tier.name: [tier.process.pid, *processor.below(tier.process.pid)] for tier in stack.tiers}


def _counters() -> dict[str, dict[str, float]]:
    return {tier: scrape(port) for tier, port in METRICS_PORTS.items()}
