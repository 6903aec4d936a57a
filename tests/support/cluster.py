"""A small cluster on one machine: a gateway, several encoders and decoders, all real processes on TCP."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tandem.launcher import Tier, spawn, wait_ready
from tests.support.metrics import Samples, scrape, value
from tests.support.ports import free_port

START_SECONDS = 180
DECODER_ARGS = ("--dtype", "fp32", "--max-model-len", "1024")


@dataclass(slots=True)
class Replica:
    """One encoder or decoder; `tier` is None while it is not running."""

    module: str
    address: str
    metrics_port: int
    arguments: list[str]
    tier: Tier | None = None

    def start(self, logs: Path) -> Tier:
        name = f"{self.module}-{self.address.rpartition(':')[2]}"
        flags = ["--listen", self.address, "--metrics-port", str(self.metrics_port), *self.arguments]
        self.tier = spawn(name, self.module, flags, self.address, logs)
        return self.tier

    def kill(self) -> None:
        """As a machine that loses power."""
        assert self.tier is not None
        self.tier.process.kill()
        self.tier.process.wait()

    @property
    def pid(self) -> int:
        assert self.tier is not None
        return self.tier.process.pid

    @property
    def is_alive(self) -> bool:
        return self.tier is not None and self.tier.process.poll() is None

    def scrape(self) -> Samples:
        return scrape(self.metrics_port)


@dataclass(slots=True)
class Cluster:
    """Use as a context manager. `encoders[running:]` are known to the gateway but not started."""

    model: Path
    encoders: list[Replica]
    decoders: list[Replica]
    gateway: Replica
    logs: Path
    tiers: list[Tier] = field(default_factory=list)

    @property
    def address(self) -> str:
        return self.gateway.address

    def start(self, *replicas: Replica) -> None:
        """Start and wait until they are ready."""
        started = [replica.start(self.logs) for replica in replicas]
        self.tiers += started
        wait_ready(started, START_SECONDS)

    def sent(self) -> list[float]:
        """Seconds of audio that the gateway has sent to each encoder."""
        samples = self.gateway.scrape()
        name = "tandem_gateway_encoder_audio_seconds_total"
        return [value(samples, name, address=encoder.address) for encoder in self.encoders]

    def wait_known(self, encoder: Replica, up: bool, timeout: float = 20.0) -> None:
        """Until the gateway has noticed that an encoder came or went."""
        deadline = time.monotonic() + timeout
        while value(self.gateway.scrape(), "tandem_gateway_encoder_up", address=encoder.address) != up:
            assert time.monotonic() < deadline, f"{encoder.address} is not {'up' if up else 'down'}"
            time.sleep(0.1)


@contextlib.contextmanager
def cluster(
    model: Path,
    encoders: int,
    decoders: int,
    *,
    running: int,
    encoder_args: Sequence[str] = (),
    decoder_args: Sequence[str] = (),
) -> Iterator[Cluster]:
    """`running` of the encoders are started, the others only listed."""
    weights = ["--model", str(model)]

    def replica(module: str, arguments: list[str]) -> Replica:
        return Replica(module, f"127.0.0.1:{free_port()}", free_port(), arguments)

    language = ["--engine", "transformers", *DECODER_ARGS, *decoder_args]
    behind = [replica("decoder_service", [*weights, *language]) for _ in range(decoders)]
    targets = "ipv4:" + ",".join(item.address for item in behind)
    front = [
        replica("encoder_service", [*weights, "--decoder", targets, *encoder_args]) for _ in range(encoders)
    ]
    listed = ",".join(item.address for item in front)
    gateway = replica("gateway", ["--encoder", listed, "--http-port", "0", "--realtime-port", "0"])
    with tempfile.TemporaryDirectory(prefix="tandem-cluster-") as directory:
        built = Cluster(model, front, behind, gateway, Path(directory))
        try:
            built.start(*behind, *front[:running], gateway)
            yield built
        finally:
            for tier in built.tiers:
                tier.process.terminate()
            for tier in built.tiers:
                tier.end(grace=5)
