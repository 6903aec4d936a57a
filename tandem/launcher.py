"""Starts the three tiers as child processes of one machine; ends them whatever happens to the parent."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tandem.errors import InvalidRequest
from tandem.parent import VARIABLE

MAX_PORT = 65535
LOOPBACK = "127.0.0.1"

_NO_PORTS = ("--metrics-port", "0")
_NO_HTTP = ("--http-port", "0", "--realtime-port", "0")
"""A second process of a tier cannot have the ports of the first."""

_PORT_STEP = 10

_WHO_GETS_IN = re.compile(r"TANDEM_(?:GATEWAY|ENCODER|DECODER)_(?:API_KEYS|TLS_\w+|HEALTH_LISTEN)")

_AGAIN, _AGAIN_SECONDS = 3, 600.0
"""So often within so many seconds a tier that ends is started again."""


class LaunchError(RuntimeError):
    """A tier exited or did not become ready in time; the message ends with the last lines of its log."""


def host_port(host: str, port: int) -> str:
    """As gRPC and URLs have it; IPv6 addresses get their brackets. InvalidRequest beyond the last port."""
    if port > MAX_PORT:
        raise InvalidRequest(f"port {port} is beyond {MAX_PORT}")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where each process listens, as gRPC targets; `more_gateways` take the same calls as the first.

    Encoder i sends to decoder i modulo the number of decoders, of which there are no more than encoders.
    """

    gateway: str
    encoder: str
    decoder: str
    more_gateways: tuple[str, ...] = ()
    more_encoders: tuple[str, ...] = ()
    more_decoders: tuple[str, ...] = ()

    @classmethod
    def tcp(
        cls,
        host: str = LOOPBACK,
        gateway: int = 50051,
        encoder: int = 50052,
        decoder: int = 50053,
        encoders: int = 1,
        decoders: int = 1,
    ) -> Addresses:
        """The gateway on `host`, the others for this machine only: they know no API keys.

        Further encoders and decoders listen 10, 20, ... ports after the first. InvalidRequest where there
        are no such ports.
        """

        def more(port: int, number: int) -> tuple[str, ...]:
            return tuple(host_port(LOOPBACK, port + index * _PORT_STEP) for index in range(1, number))

        return cls(
            host_port(host, gateway),
            host_port(LOOPBACK, encoder),
            host_port(LOOPBACK, decoder),
            more_encoders=more(encoder, encoders),
            more_decoders=more(decoder, decoders),
        )

    @classmethod
    def unix(cls, directory: Path, gateways: int = 1, encoders: int = 1, decoders: int = 1) -> Addresses:
        def socket(name: str) -> str:
            return f"unix:{directory / name}.sock"

        def more(tier: str, number: int) -> tuple[str, ...]:
            return tuple(socket(f"{tier}-{index}") for index in range(1, number))

        return cls(
            socket("gateway"),
            socket("encoder"),
            socket("decoder"),
            more("gateway", gateways),
            more("encoder", encoders),
            more("decoder", decoders),
        )

    @property
    def gateways(self) -> tuple[str, ...]:
        """All of them, the first one first; so are `encoders` and `decoders`."""
        return (self.gateway, *self.more_gateways)

    @property
    def encoders(self) -> tuple[str, ...]:
        return (self.encoder, *self.more_encoders)

    @property
    def decoders(self) -> tuple[str, ...]:
        return (self.decoder, *self.more_decoders)


@dataclass(frozen=True, slots=True)
class StackConfig:
    """What to start. Extra arguments go to the tier's own command line as they are."""

    model: str
    addresses: Addresses
    hub: str = "hf"
    engine: str = "auto"
    encoder_args: Sequence[str] = ()
    decoder_args: Sequence[str] = ()
    gateway_args: Sequence[str] = ()
    http_port: int = 0
    """Of the first gateway's HTTP and WebSocket, on `http_host`; 0 turns them off."""
    http_host: str = LOOPBACK
    realtime_port: int = 0
    """Of the first gateway's real-time WebSocket service, on `http_host`; 0 turns it off."""
    log_dir: Path | None = None
    """Where each tier's log goes; None inherits this process's standard error."""
    start_timeout: float = 300.0
    """Seconds; each decoder but the last has as many for itself, because the next one waits for it."""
    environment: Mapping[str, str] | None = None
    """Of the tiers; None is this process's own."""


def private_environment() -> dict[str, str]:
    """This process's, for services that only their owner reaches, through Unix sockets.

    It lacks what is meant for services of many: keys and certificates, of which the owner brings none, and
    addresses for health, which such services have already.
    """
    return {name: value for name, value in os.environ.items() if not _WHO_GETS_IN.fullmatch(name)}


@dataclass(slots=True)
class Tier:
    """One child process. It serves at `address`; the gRPC server at `health` tells whether it is ready."""

    name: str
    address: str
    health: str
    process: subprocess.Popen[bytes]
    log_path: Path | None

    def check_alive(self) -> None:
        code = self.process.poll()
        if code is not None:
            raise LaunchError(f"{self.name} exited with code {code}\n{self.log_tail()}".rstrip())

    def log_tail(self, lines: int = 25) -> str:
        if self.log_path is None:
            return ""
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    def end(self, grace: float) -> None:
        """SIGTERM, wait `grace` seconds, then SIGKILL to whatever is left of its process group."""
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(grace)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()


def spawn(
    name: str,
    module: str,
    arguments: Sequence[str],
    address: str,
    log_dir: Path | None,
    *,
    health: str = "",
    again: bool = False,
    environment: Mapping[str, str] | None = None,
) -> Tier:
    """Start `python -m module` in a process group of its own, told to end when this process dies.

    It is asked for its readiness at `health`, or at its address. Its log begins anew, except with `again`.
    `environment` None is this process's own.
    """
    log_path = log_dir / f"{name}.log" if log_dir is not None else None
    log: IO[bytes] | None = log_path.open("ab" if again else "wb") if log_path is not None else None
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT if log is not None else None,
        process_group=0,  # a session of its own lets a busy engine starve its clients (autogroup)
        env={**(os.environ if environment is None else environment), VARIABLE: "1"},
    )
    if log is not None:
        log.close()
    return Tier(name, address, health or address, process, log_path)


def is_ready(target: str, timeout: float = 1.0) -> bool:
    """Whether the server at `target` reports readiness."""
    with grpc.insecure_channel(target) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            reply = stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout)
        except grpc.RpcError:
            return False
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


def wait_ready(
    tiers: Sequence[Tier],
    timeout: float,
    on_progress: Callable[[str], None] = lambda message: None,
    beside: Sequence[Tier] = (),
) -> None:
    """Block until every tier is ready.

    LaunchError when one exits, ready or not, also one of `beside`, or `timeout` seconds pass.
    """
    deadline = time.monotonic() + timeout
    waiting = list(tiers)
    while waiting:
        for tier in (*tiers, *beside):
            tier.check_alive()
        for tier in list(waiting):
            if is_ready(tier.health):
                waiting.remove(tier)
                on_progress(f"{tier.name} is ready")
        if waiting and time.monotonic() > deadline:
            late = waiting[0]
            raise LaunchError(f"{late.name} was not ready in {timeout:.0f} s\n{late.log_tail()}".rstrip())
        if waiting:
            time.sleep(0.1)


@dataclass(frozen=True, slots=True)
class Command:
    """What starts one process, where it then serves, and where its readiness is asked."""

    name: str
    module: str
    arguments: Sequence[str]
    address: str
    health: str


@dataclass(slots=True)
class Stack:
    """The three tiers of one machine as a context manager.

    Entering starts a decoder, encoders and gateways side by side, further decoders one after another, and
    waits until each is ready; leaving ends them in reverse, first with SIGTERM, then with SIGKILL. Raises
    LaunchError when one fails to start.

    Each is asked for its readiness at a Unix socket that nobody else can have: another process may have its
    port, and its port may want certificates. Where the first of a tier has an address for health of the
    operator's, it is asked there.
    """

    config: StackConfig
    on_progress: Callable[[str], None] = lambda message: None
    tiers: list[Tier] = field(default_factory=list)
    _ends: dict[str, list[float]] = field(default_factory=dict)
    _starting: set[str] = field(default_factory=set)
    """Tiers that were started again and are not ready yet."""
    _sockets: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Stack:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def address(self) -> str:
        return self.config.addresses.gateway

    def _start(self) -> None:
        self._sockets = tempfile.TemporaryDirectory(prefix="tandem-health-")
        decoder, *more_decoders = self._decoders()
        for command in (decoder, *self._encoders(), *self._gateways()):
            self.tiers.append(self._spawn(command))
        timeout = self.config.start_timeout
        # vLLM measures what memory it may take: another decoder must not grow meanwhile.
        for number, command in enumerate(more_decoders):
            wait_ready([self.tiers[number]], timeout, beside=self.tiers)
            self.tiers.insert(number + 1, self._spawn(command))
        wait_ready(self.tiers, timeout, self.on_progress)

    def _spawn(self, command: Command, *, again: bool = False) -> Tier:
        own = (command.name, command.module, command.arguments, command.address)
        config = self.config
        return spawn(*own, config.log_dir, health=command.health, again=again, environment=config.environment)

    def _decoders(self) -> Iterator[Command]:
        flags = [*self._model(), "--engine", self.config.engine, *self.config.decoder_args]
        for number, address in enumerate(self.config.addresses.decoders):
            yield self._command("decoder", number, address, flags)

    def _encoders(self) -> Iterator[Command]:
        decoders = self.config.addresses.decoders
        for number, address in enumerate(self.config.addresses.encoders):
            flags = [*self._model(), "--decoder", decoders[number % len(decoders)], *self.config.encoder_args]
            yield self._command("encoder", number, address, flags)

    def _gateways(self) -> Iterator[Command]:
        config = self.config
        flags = ["--encoder", ",".join(config.addresses.encoders)]
        flags += ["--http-host", config.http_host, "--http-port", str(config.http_port)]
        flags += ["--realtime-host", config.http_host, "--realtime-port", str(config.realtime_port)]
        flags += config.gateway_args
        for number, address in enumerate(config.addresses.gateways):
            yield self._command("gateway", number, address, [*flags, *(_NO_HTTP if number else ())])

    def _command(self, tier: str, number: int, address: str, flags: Sequence[str]) -> Command:
        """The first of a tier has its name, and the ports that it alone can have."""
        module = tier if tier == "gateway" else f"{tier}_service"
        name = f"{tier}-{number}" if number else tier
        arguments = ["--listen", address, *flags, *(_NO_PORTS if number else ())]
        if not number and (health := _health_address(tier, flags, self.config.environment)):
            return Command(name, module, arguments, address, health)
        assert self._sockets is not None
        health = f"unix:{self._sockets.name}/{name}.sock"
        return Command(name, module, [*arguments, "--health-listen", health], address, health)

    def _model(self) -> list[str]:
        return ["--model", self.config.model, "--hub", self.config.hub]

    def wait(self) -> None:
        """Block, and start tiers that end again.

        LaunchError for one that ends before it is ready, or more than three times in ten minutes.
        """
        while True:
            for number, tier in enumerate(self.tiers):
                if tier.process.poll() is not None:
                    self.tiers[number] = self._start_again(tier)
                elif tier.name in self._starting and is_ready(tier.health):
                    self._starting.remove(tier.name)
                    self.on_progress(f"{tier.name} is ready")
            time.sleep(0.5)

    def _start_again(self, tier: Tier) -> Tier:
        now = time.monotonic()
        ends = [at for at in self._ends.get(tier.name, ()) if at > now - _AGAIN_SECONDS]
        if tier.name in self._starting or len(ends) == _AGAIN:
            tier.check_alive()
        self._ends[tier.name] = [*ends, now]
        self.on_progress(f"{tier.name} exited with code {tier.process.returncode} and is started again")
        tier.end(grace=0.0)  # what it started may have outlived it
        self._starting.add(tier.name)
        commands = (*self._decoders(), *self._encoders(), *self._gateways())
        return self._spawn(next(one for one in commands if one.name == tier.name), again=True)

    def close(self, grace: float = 15.0) -> None:
        """End every child: SIGTERM to all, then SIGKILL to the process groups that remain."""
        for tier in reversed(self.tiers):
            tier.process.terminate()
        deadline = time.monotonic() + grace
        for tier in self.tiers:
            tier.end(max(0.0, deadline - time.monotonic()))
        self.tiers.clear()
        if self._sockets is not None:
            self._sockets.cleanup()


def _health_address(tier: str, flags: Sequence[str], environment: Mapping[str, str] | None) -> str:
    """What the operator says in flags or in the environment; empty where that is nothing."""
    variables = os.environ if environment is None else environment
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--health-listen", default=variables.get(f"TANDEM_{tier.upper()}_HEALTH_LISTEN", ""))
    return str(parser.parse_known_args(flags)[0].health_listen)


@contextlib.contextmanager
def private_stack(model: str, **options: object) -> Iterator[Stack]:
    """A stack on Unix sockets in a temporary directory, for one command or SDK object."""
    with tempfile.TemporaryDirectory(prefix="tandem-") as directory:
        root = Path(directory)
        own = {"addresses": Addresses.unix(root), "log_dir": root, "environment": private_environment()}
        config = StackConfig(model=model, **own, **options)  # type: ignore[arg-type]
        with Stack(config) as stack:
            yield stack
