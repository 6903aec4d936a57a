"""`tandem serve` as its user runs it: who reaches what, taken ports, variables of its tiers."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tandem import Client, RecognizeOptions
from tandem.access import Access
from tandem.api_keys import new_key
from tandem.launcher import is_ready
from tests.support.certificates import Authority
from tests.support.ports import free_port
from tests.support.services import NANO

COMMAND = [sys.executable, "-m", "tandem", "serve", "--model", str(NANO), "--engine", "transformers"]
PORTS = ("port", "http-port", "realtime-port", "encoder-port", "decoder-port")
START_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Served:
    """A running `tandem serve`; `ports` by the flags that named them."""

    log: Path
    ports: Mapping[str, int] = field(default_factory=lambda: {name: free_port() for name in PORTS})

    def flags(self) -> list[str]:
        return [word for name, port in self.ports.items() for word in (f"--{name}", str(port))]

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8")


@contextlib.contextmanager
def serve(log: Path, host: str, variables: Mapping[str, str] | None = None) -> Iterator[Served]:
    """Started, and ready by its own word."""
    served = Served(log)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*COMMAND, "--host", host, *served.flags()],
            stderr=output,
            env={**os.environ, **(variables or {})},
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while "tandem is ready" not in served.said():
            assert process.poll() is None and time.monotonic() < deadline, served.said()
            time.sleep(0.1)
        yield served
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


@pytest.fixture(scope="module")
def served(derived_files: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve(tmp_path_factory.mktemp("serve") / "log", "0.0.0.0") as running:
        yield running


def reached(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


def has_address(host: str) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, 0), family=family).close()
    except OSError:
        return False
    return True


def test_host_opens_the_gateway_alone(served: Served) -> None:
    # Nobody listens on 127.0.0.2 but who listens on all addresses.
    found = {name for name, port in served.ports.items() if reached("127.0.0.2", port)}
    assert found == {"port", "http-port", "realtime-port"}
    assert all(reached("127.0.0.1", port) for port in served.ports.values())


@pytest.mark.parametrize("taken", PORTS)
def test_a_taken_port_is_one_line(served: Served, taken: str) -> None:
    second = Served(served.log, {name: free_port() for name in PORTS} | {taken: served.ports[taken]})
    command = [*COMMAND, "--host", "127.0.0.1", *second.flags()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=START_SECONDS, check=False)
    tier = taken.removesuffix("-port") if taken in ("encoder-port", "decoder-port") else "gateway"
    assert done.returncode == 1
    assert done.stderr.endswith(f"\ntandem serve: {tier} exited with code 1\n")
    assert str(served.ports[taken]) in done.stderr
    for wrong in ("tandem is ready", f"{tier} is ready", "started again", "Traceback"):
        assert wrong not in done.stderr
    assert is_ready(f"127.0.0.1:{served.ports['port']}")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_gateway_behind_certificates_and_keys_is_ready(
    host: str, derived_files: None, tmp_path: Path
) -> None:
    """Its variables reach it; the encoder is asked for its health where the operator lets it be asked."""
    if not has_address(host):
        pytest.skip(f"this machine has no {host}")
    authority = Authority(tmp_path)
    server = authority.issue("server")
    key, line = new_key("tester")
    keys, health = tmp_path / "keys", f"127.0.0.1:{free_port()}"
    keys.write_text(f"{line}\n", encoding="utf-8")
    variables = {
        "TANDEM_GATEWAY_TLS_CERT": str(server.cert),
        "TANDEM_GATEWAY_TLS_KEY": str(server.key),
        "TANDEM_GATEWAY_API_KEYS": str(keys),
        "TANDEM_ENCODER_HEALTH_LISTEN": health,
    }
    with serve(tmp_path / "log", host, variables) as served:
        name = {"::1": "[::1]"}.get(host, host)
        target = f"{name}:{served.ports['port']}"
        assert f"tandem is ready: gRPC on {target}, HTTP on https://{name}:" in served.said()
        assert is_ready(health)
        assert not is_ready(target)
        access = Access(authority.ca, server_name="localhost", api_key=key)
        with Client(target, access=access) as client:
            options = RecognizeOptions(vad=False, max_new_tokens=3)
            assert client.recognize(NANO / "mandarin_206ms.wav", options, timeout=60).segments
        assert "Traceback" not in served.said()
