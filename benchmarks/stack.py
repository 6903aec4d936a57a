"""The three services as benchmarks run them: forced answers, room for the workload, metrics, logs kept."""

from __future__ import annotations

import contextlib
import os
import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import published
from benchmarks.watch import Watched
from tandem.launcher import Addresses, Stack, StackConfig, Tier, spawn, wait_ready

METRICS_PORTS = {"gateway": 9461, "encoder": 9462, "decoder": 9463}
_MORE_PORTS = {"encoder": 9471, "decoder": 9486, "gateway": 9501}
"""From these on those beside the stack's own have theirs; gateways, of which there are most, come last."""
_START_SECONDS = 400.0


@dataclass(frozen=True, slots=True)
class Services:
    """What to start. `extra` holds flags for single tiers, which win over those chosen here."""

    model: Path
    root: Path
    engine: str = "vllm"
    device: str | None = None
    gpu_share: float = 0.6
    """Of the GPU's memory, for all decoders together."""
    tokens_per_embedding: float = published.TOKENS_PER_EMBEDDING
    """0 lets the model end its answers."""
    queued_seconds: float = 24_000.0
    gateways: int = 1
    """Processes that a pass is spread over; audio workers, half of the cores at least, are shared out."""
    encoders: int = 1
    """Processes that share the encoder's device."""
    decoders: int = 1
    """Processes that share the decoder's device; encoder i sends to decoder i modulo their number."""
    extra: dict[str, Sequence[str]] = field(default_factory=dict)

    def flags(self, tier: str) -> list[str]:
        """Command-line flags of a tier."""
        speakers = published.speaker_directory(self.model)
        device = ["--device", self.device] if self.device else []
        own = {
            "gateway": [
                *("--audio-workers", str(self.workers())),
                *("--max-sessions", "4096", "--local-files"),
            ],
            "encoder": [
                *device,
                *("--max-queued-seconds", str(self.queued_seconds)),
                *("--speaker-model", str(speakers) if speakers.is_dir() else "auto"),
            ],
            "decoder": [
                *device,
                *("--gpu-memory-utilization", str(self.gpu_share / self.decoders)),
                *("--forced-tokens-per-embedding", str(self.tokens_per_embedding)),
                *("--max-waiting-requests", "8192"),
            ],
        }
        port = str(METRICS_PORTS[tier])
        return [*own[tier], "--metrics-port", port, *self.extra.get(tier, ())]

    def workers(self) -> int:
        """Audio workers of each gateway: half of the cores for one alone, else all that there are."""
        cores = os.cpu_count() or 2
        return max(2, cores // 2) if self.gateways == 1 else max(1, cores // self.gateways)

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
            start_timeout=_START_SECONDS,
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


@dataclass(frozen=True, slots=True)
class Process:
    """One process of a tier, and the port of its metrics."""

    tier: Tier
    port: int


@dataclass(frozen=True, slots=True)
class Front:
    """The gateways, where clients send, and the processes behind them."""

    gateways: Sequence[Process]
    encoders: Sequence[Process]
    decoders: Sequence[Process]

    @property
    def servers(self) -> tuple[str, ...]:
        return tuple(process.tier.address for process in self.gateways)

    @property
    def watched(self) -> list[Watched]:
        """What to watch while clients send."""
        tiers = {"decoder": self.decoders, "encoder": self.encoders, "gateway": self.gateways}
        return [
            Watched(
                name,
                tuple(process.tier.process.pid for process in processes),
                tuple(process.port for process in processes),
            )
            for name, processes in tiers.items()
        ]

    def check_alive(self) -> None:
        """Raises LaunchError when a process has ended."""
        for process in (*self.decoders, *self.encoders, *self.gateways):
            process.tier.check_alive()


def encode_everything() -> None:
    """Encoders that are started from now on keep nothing: for benchmarks that send the same audio again."""
    os.environ["TANDEM_ENCODER_EMBEDDING_CACHE_MIB"] = "0"


@contextlib.contextmanager
def running(services: Services) -> Iterator[Stack]:
    """The stack, ready; says how long its start took."""
    started = time.perf_counter()
    with Stack(services.config()) as stack:
        print(f"{services.engine} services ready after {time.perf_counter() - started:.0f} s", flush=True)
        yield stack


def own(stack: Stack) -> Front:
    """The stack's own three processes."""
    found = {tier.name: [Process(tier, METRICS_PORTS[tier.name])] for tier in stack.tiers}
    return Front(found["gateway"], found["encoder"], found["decoder"])


@contextlib.contextmanager
def more_decoders(
    services: Services, there: Sequence[Process], number: int, flags: Sequence[str] = ()
) -> Iterator[list[Process]]:
    """So many decoders: those that are there, and others with these flags as well.

    They start one after another: what vLLM takes for its own use of memory must not be another one's start.
    """
    usual = ["--model", str(services.model), "--engine", services.engine, *services.flags("decoder"), *flags]
    with _ended() as started:
        for index in range(len(there), number):
            started.append(_started(services, "decoder", index, usual))
            wait_ready([started[-1].tier], _START_SECONDS)
        yield [*there, *started]


@contextlib.contextmanager
def more_encoders(
    services: Services, there: Sequence[Process], number: int, decoders: Sequence[Process]
) -> Iterator[list[Process]]:
    """So many: those that are there, and others; encoder i sends to decoder i modulo their number."""
    usual = ["--model", str(services.model), *services.flags("encoder")]
    with _ended() as started:
        for index in range(len(there), number):
            decoder = decoders[index % len(decoders)].tier.address
            started.append(_started(services, "encoder", index, [*usual, "--decoder", decoder]))
        wait_ready([process.tier for process in started], _START_SECONDS)
        yield [*there, *started]


@contextlib.contextmanager
def more_gateways(
    services: Services, number: int, encoders: Sequence[Process], flags: Sequence[str] = (), first: int = 0
) -> Iterator[list[Process]]:
    """So many gateways in front of these encoders, numbered from `first`, with these flags as well."""
    usual = ["--encoder", ",".join(process.tier.address for process in encoders), *services.flags("gateway")]
    usual += ["--http-port", "0", "--realtime-port", "0", *flags]
    with _ended() as started:
        started += [_started(services, "gateway", index, usual) for index in range(first, first + number)]
        wait_ready([process.tier for process in started], _START_SECONDS)
        yield started


@contextlib.contextmanager
def one_tier(services: Services) -> Iterator[list[Process]]:
    """An encoder that has the decoder's engine in its own process; see benchmarks.one_tier."""
    model = ["--model", str(services.model)]
    decoder = [*model, "--engine", services.engine, *services.flags("decoder"), "--metrics-port", "0"]
    flags = [*model, *services.flags("encoder"), "--decoder", shlex.join(decoder)]
    with _ended() as started:
        started.append(_started(services, "encoder", 0, flags, "benchmarks.one_tier"))
        wait_ready([started[0].tier], _START_SECONDS)
        yield started


def _started(
    services: Services, tier: str, index: int, flags: Sequence[str], module: str | None = None
) -> Process:
    """One process beside the stack's own of that tier, not yet ready; `module` is not what serves it else."""
    services.root.mkdir(parents=True, exist_ok=True)
    name, port = f"{tier}-{index}", _MORE_PORTS[tier] + index
    address = f"unix:{services.root / name}.sock"
    module = module or (tier if tier == "gateway" else f"{tier}_service")
    arguments = ["--listen", address, *flags, "--metrics-port", str(port)]
    return Process(spawn(name, module, arguments, address, services.root), port)


@contextlib.contextmanager
def _ended() -> Iterator[list[Process]]:
    """A list whose processes end with the context."""
    started: list[Process] = []
    try:
        yield started
    finally:
        for process in started:
            process.tier.process.terminate()
        for process in started:
            process.tier.end(grace=10.0)


@contextlib.contextmanager
def behind(services: Services, stack: Stack) -> Iterator[Front]:
    """The stack's own gateway, and as many encoders and decoders as the services ask for."""
    there = own(stack)
    with (
        more_decoders(services, there.decoders, services.decoders) as decoders,
        more_encoders(services, there.encoders, services.encoders, decoders) as encoders,
    ):
        yield Front(there.gateways, encoders, decoders)


@contextlib.contextmanager
def front(services: Services, there: Front, flags: Sequence[str] = ()) -> Iterator[Front]:
    """As many gateways as the services ask for, with these flags as well, before what is there."""
    if services.gateways == services.encoders == 1 and not flags:
        yield there
        return
    with more_gateways(services, services.gateways, there.encoders, flags) as gateways:
        yield Front(gateways, there.encoders, there.decoders)
