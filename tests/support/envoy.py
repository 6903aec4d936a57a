"""The chart's Envoy as a process in front of a gateway of this machine."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tandem.launcher import is_ready
from tests.deploy.chart import container, find, render
from tests.support.ports import free_port

_GATEWAY = "speech-tandem-gateway-headless"


@dataclass(frozen=True, slots=True)
class Envoy:
    """host:port of its listener, and the command that Kubernetes runs before it ends the pod."""

    address: str
    pre_stop: list[str]


@contextlib.contextmanager
def envoy(gateway: str, cors_origins: Sequence[str] = (), drain_seconds: int = 30) -> Iterator[Envoy]:
    """Everything but the gateway's name is as the chart has it; `gateway` is host:port."""
    port = free_port()
    host, _, gateway_port = gateway.rpartition(":")
    manifests = render(
        {
            "envoy": {"enabled": True, "port": port, "adminPort": free_port()},
            "gateway": {"ports": {"grpc": int(gateway_port)}, "corsOrigins": list(cors_origins)},
            "shutdown": {"lameduckSeconds": 0, "drainSeconds": drain_seconds},
        }
    )
    text = find(manifests, "ConfigMap", "envoy")["data"]["envoy.yaml"]
    pod: dict[str, Any] = container(manifests, "envoy")
    assert _GATEWAY in text
    with tempfile.TemporaryDirectory(prefix="tandem-envoy-") as directory:
        file, log = Path(directory) / "envoy.yaml", Path(directory) / "envoy.log"
        file.write_text(text.replace(_GATEWAY, host), encoding="utf-8")
        program = Path(sys.executable).with_name("envoy")
        arguments = [str(file) if word == "/etc/envoy/envoy.yaml" else word for word in pod["args"]]
        command = [str(program), *arguments, "--disable-hot-restart", "--concurrency", "1"]
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            deadline = time.monotonic() + 30
            while not is_ready(f"127.0.0.1:{port}"):
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
            yield Envoy(f"127.0.0.1:{port}", pod["lifecycle"]["preStop"]["exec"]["command"])
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()
