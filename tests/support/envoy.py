"""The chart's Envoy as a process in front of a gateway of this machine."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tandem.launcher import is_ready
from tests.deploy.chart import find, render
from tests.support.services import free_port

_GATEWAY = "speech-tandem-gateway-headless"


@contextlib.contextmanager
def envoy(gateway: str, cors_origins: Sequence[str] = ()) -> Iterator[str]:
    """Its address. Everything but the gateway's name is as the chart has it; `gateway` is host:port."""
    port = free_port()
    host, _, gateway_port = gateway.rpartition(":")
    values = {
        "envoy": {"enabled": True, "port": port},
        "gateway": {"ports": {"grpc": int(gateway_port)}, "corsOrigins": list(cors_origins)},
    }
    text = find(render(values), "ConfigMap", "envoy")["data"]["envoy.yaml"]
    assert _GATEWAY in text
    with tempfile.TemporaryDirectory(prefix="tandem-envoy-") as directory:
        file, log = Path(directory) / "envoy.yaml", Path(directory) / "envoy.log"
        file.write_text(text.replace(_GATEWAY, host), encoding="utf-8")
        program = Path(sys.executable).with_name("envoy")
        command = [str(program), "-c", str(file), "--disable-hot-restart", "--concurrency", "1"]
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            deadline = time.monotonic() + 30
            while not is_ready(f"127.0.0.1:{port}"):
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()
