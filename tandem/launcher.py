"""Starts the three tiers as child processes of one machine; ends them whatever happens to the parent."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tandem.parent import VARIABLE

_NO_PORTS = ("--metrics-port", "0", "--health-listen", "")
_NO_HTTP = ("--http-port", "0", "--realtime-port", "0")
"""A second process of a tier cannot have the ports of the first."""

_PORT_STEP = 10

_AGAIN, _AGAIN_SECONDS = 3, 600.0
"""So often within so many seconds a tier that ends is started again."""


class LaunchError(RuntimeError):
    """A tier exited or did not become ready in time; the message ends with the last lines of its log."""


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
        host: str = "127.0.0.1",
        gateway: int = 50051,
        encoder: int = 50052,
        decoder: int = 50053,
        encoders: int = 1,
        decoders: int = 1,
    ) -> Addresses:
        """Further encoders and decoders listen 10, 20, ... ports after the first."""

        def more(port: int, number: int) -> tuple[str, ...]:
            return tuple(f"{host}:{port + index * _PORT_STEP}" for index in range(1, number))

        return cls(
            f"{host}:{gateway}",
            f"{host}:{encoder}",
            f"{host}:{decoder}",
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
    http_host: str = "127.0.0.1"
    realtime_port: int = 0
    """Of the first gateway's real-time WebSocket service, on `http_host`; 0 turns it off."""
    log_dir: Path | None = None
    """Where each tier's log goes; None inherits this process's standard error."""
    start_timeout: float = 300.0
    """Seconds; each decoder but the last has as many for itself, because the next one waits for it."""


@dataclass(slots=True)
class Tier:
    """One child process."""

    name: str
    address: str
    process: subprocess.Popen[bytes]
    log_path: Path | None

    def check_alive(self) -> None:
        code = self.process.poll()
        if code is not None:
            raise LaunchError(f"{self.name} exited with code {code}\n{self.log_tail()}")

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
    again: bool = False,
) -> Tier:
    """Start `python -m module` in a process group of its own, told to end when this process dies.

    Its log begins anew, except with `again`.
    """
    log_path = log_dir / f"{name}.log" if log_dir is not None else None
    log: IO[bytes] | None = log_path.open("ab" if again else "wb") if log_path is not None else None
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT if log is not None else None,
        process_group=0,  # a session of its own lets a busy engine starve its clients (autogroup)
        env={**os.environ, VARIABLE: "1"},
    )
    if log is not None:
        log.close()
    return Tier(name, address, process, log_path)


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

    LaunchError when one exits, also one of `beside`, or `timeout` seconds pass.
    """
    deadline = time.monotonic() + timeout
    waiting = list(tiers)
    while waiting:
        for tier in beside:
            tier.check_alive()
        for tier in list(waiting):
            tier.check_alive()
            if is_ready(tier.address):
                waiting.remove(tier)
                on_progress(f"{tier.name} is ready")
        if waiting and time.monotonic() > deadline:
            late = waiting[0]
            raise LaunchError(f"{late.name} was not ready in {timeout:.0f} s\n{late.log_tail()}")
        if waiting:
            time.sleep(0.1)


@dataclass(frozen=True, slots=True)
class Command:
    """What starts one process, and where it then listens."""

    name: str
    module: str
    arguments: Sequence[str]
    address: str


@dataclass(slots=True)
class Stack:
    """The three tiers of one machine as a context manager.

    Entering starts a decoder, encoders and gateways side by side, further decoders one after another, and
    waits until each is ready; leaving ends them in reverse, first with SIGTERM, then with SIGKILL. Raises
    LaunchError when one fails to start.
    """

    config: StackConfig
    on_progress: Callable[[str], None] = lambda message: None
    tiers: list[Tier] = field(default_factory=list)
    _ends: dict[str, list[float]] = field(default_factory=dict)
    _starting: set[str] = field(default_factory=set)
    """Tiers that were started again and are not ready yet."""

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
        return spawn(*own, self.config.log_dir, again=again)

    def _decoders(self) -> Iterator[Command]:
        flags = [*self._model(), "--engine", self.config.engine, *self.config.decoder_args]
        for number, address in enumerate(self.config.addresses.decoders):
            yield _command("decoder", number, address, flags)

    def _encoders(self) -> Iterator[Command]:
        decoders = self.config.addresses.decoders
        for number, address in enumerate(self.config.addresses.encoders):
            flags = [*self._model(), "--decoder", decoders[number % len(decoders)], *self.config.encoder_args]
            yield _command("encoder", number, address, flags)

    def _gateways(self) -> Iterator[Command]:
        config = self.config
        flags = ["--encoder", ",".join(config.addresses.encoders)]
        flags += ["--http-host", config.http_host, "--http-port", str(config.http_port)]
        flags += ["--realtime-host", config.http_host, "--realtime-port", str(config.realtime_port)]
        flags += config.gateway_args
        for number, address in enumerate(config.addresses.gateways):
            yield _command("gateway", number, address, [*flags, *(_NO_HTTP if number else ())])

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
                elif tier.name in self._starting and is_ready(tier.address):
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


def _command(tier: str, number: int, address: str, flags: Sequence[str]) -> Command:
    """The first of a tier has its name, and the ports that it alone can have."""
    module = tier if tier == "gateway" else f"{tier}_service"
    arguments = ["--listen", address, *flags]
    if number == 0:
        return Command(tier, module, arguments, address)
    return Command(f"{tier}-{number}", module, [*arguments, *_NO_PORTS], address)


@contextlib.contextmanager
def private_stack(model: str, **options: object) -> Iterator[Stack]:
    """A stack on Unix sockets in a temporary directory, for one command or SDK object."""
    with tempfile.TemporaryDirectory(prefix="tandem-") as directory:
        root = Path(directory)
        config = StackConfig(model=model, addresses=Addresses.unix(root), log_dir=root, **options)  # type: ignore[arg-type]
        with Stack(config) as stack:
            yield stack
