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
_MORE_PORTS = 9471
_MORE_ENCODER_PORTS = 9491


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
    gateways: int = 1
    """Processes that a pass is spread over; audio workers, half of the cores at least, are shared out."""
    encoders: int = 1
    """Processes that share the encoder's device."""
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
                *("--gpu-memory-utilization", str(self.gpu_share)),
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


@dataclass(frozen=True, slots=True)
class Front:
    """Where clients send, and what is watched meanwhile."""

    servers: tuple[str, ...]
    watched: list[Watched]
    tiers: tuple[Tier, ...]

    def check_alive(self) -> None:
        """Raises LaunchError when a process has ended."""
        for tier in self.tiers:
            tier.check_alive()


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


@contextlib.contextmanager
def more_encoders(services: Services, stack: Stack, number: int) -> Iterator[list[Tier]]:
    """So many encoders beside the stack's own, on the same device, for the same decoder."""
    at = stack.config.addresses
    usual = ["--model", str(services.model), "--decoder", at.decoder, *services.flags("encoder")]
    with _beside(services, "encoder", "encoder_service", number, usual, _MORE_ENCODER_PORTS) as started:
        yield started


@contextlib.contextmanager
def more_gateways(
    services: Services, stack: Stack, number: int, flags: Sequence[str] = (), encoders: Sequence[Tier] = ()
) -> Iterator[list[Tier]]:
    """So many gateways beside the stack's own, with these flags as well.

    They are in front of the stack's encoder, and of `encoders` too.
    """
    targets = [stack.config.addresses.encoder, *(tier.address for tier in encoders)]
    usual = ["--encoder", ",".join(targets), *services.flags("gateway")]
    usual += ["--http-port", "0", "--realtime-port", "0", *flags]
    with _beside(services, "gateway", "gateway", number, usual, _MORE_PORTS) as started:
        yield started


@contextlib.contextmanager
def _beside(
    services: Services, tier: str, module: str, number: int, flags: Sequence[str], ports: int
) -> Iterator[list[Tier]]:
    """Processes of one tier, ready; their metrics are at `ports` and the following ones."""
    started: list[Tier] = []
    try:
        for index in range(number):
            name = f"{tier}-{index}"
            address = f"unix:{services.root / name}.sock"
            own = ["--listen", address, *flags, "--metrics-port", str(ports + index)]
            started.append(spawn(name, module, own, address, services.root))
        wait_ready(started, timeout=120.0)
        yield started
    finally:
        for process in started:
            process.process.terminate()
        for process in started:
            process.end(grace=10.0)


@contextlib.contextmanager
def front(services: Services, stack: Stack) -> Iterator[Front]:
    """The stack's own gateway and encoder, or as many as the services ask for."""
    if services.gateways == services.encoders == 1:
        yield Front((stack.address,), watched(stack), tuple(stack.tiers))
        return
    with (
        more_encoders(services, stack, services.encoders - 1) as encoders,
        more_gateways(services, stack, services.gateways, encoders=encoders) as gateways,
    ):
        servers = tuple(tier.address for tier in gateways)
        yield Front(servers, watched(stack, gateways, encoders), (*stack.tiers, *encoders, *gateways))


def watched(stack: Stack, gateways: Sequence[Tier] = (), encoders: Sequence[Tier] = ()) -> list[Watched]:
    """The stack's tiers and more encoders; more gateways, if any, in place of the stack's own."""
    tiers = []
    for tier in stack.tiers:
        if tier.name == "gateway" and gateways:
            continue
        more = encoders if tier.name == "encoder" else ()
        processes = (tier.process.pid, *(other.process.pid for other in more))
        ports = (METRICS_PORTS[tier.name], *(_MORE_ENCODER_PORTS + index for index in range(len(more))))
        tiers.append(Watched(tier.name, processes, ports))
    if gateways:
        ports = tuple(_MORE_PORTS + index for index in range(len(gateways)))
        tiers.append(Watched("gateway", tuple(tier.process.pid for tier in gateways), ports))
    return tiers
