"""The chart's Envoy in front of the gateway: gRPC of several languages, live audio, gRPC-Web from a page."""

from __future__ import annotations

import contextlib
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tandem import Client
from tandem.asr.v1 import asr_pb2 as pb
from tandem.launcher import Stack, is_ready
from tandem.live_events import Final
from tandem.results import Transcript
from tests.clients import contract
from tests.clients.programs import MEETING, build
from tests.deploy.chart import find, render
from tests.support.services import free_port

PAGE = "https://page.example"


@pytest.fixture(scope="module")
def envoy(services: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an Envoy with the chart's configuration; only the gateway's name is replaced."""
    port = free_port()
    host, _, gateway_port = services.address.rpartition(":")
    values = {
        "envoy": {"enabled": True, "port": port},
        "gateway": {"ports": {"grpc": int(gateway_port)}, "corsOrigins": [PAGE]},
    }
    text = find(render(values), "ConfigMap", "envoy")["data"]["envoy.yaml"]
    assert "speech-tandem-gateway-headless" in text
    directory = tmp_path_factory.mktemp("envoy")
    file = directory / "envoy.yaml"
    file.write_text(text.replace("speech-tandem-gateway-headless", host), encoding="utf-8")
    program = Path(sys.executable).with_name("envoy")
    with (directory / "envoy.log").open("wb") as log:
        command = [str(program), "-c", str(file), "--base-id", str(port), "--concurrency", "1"]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 30
        while not is_ready(f"127.0.0.1:{port}"):
            assert process.poll() is None and time.monotonic() < deadline, (
                directory / "envoy.log"
            ).read_text()
            time.sleep(0.2)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()


def test_recordings_and_typed_errors_pass(envoy: str, heard: Transcript, tmp_path: Path) -> None:
    with Client(envoy) as client:
        assert client.recognize(MEETING, timeout=120).text == heard.text
    for language, command in (("go", ["build/bin/recognize"]), ("java", ["run.sh", "Recognize"])):
        program = [str(build(language) / command[0]), *command[1:]]
        start = ["bash", *program] if command[0].endswith(".sh") else program

        def recognize(flags: object, start: list[str] = start) -> list[str]:
            return [*start, *flags]  # type: ignore[misc]

        contract.bad_audio_is_a_typed_error(recognize, envoy, tmp_path)


def test_live_audio_and_its_lost_connections(envoy: str, heard_live: list[Final]) -> None:
    program = str(build("go") / "build" / "bin" / "live")
    contract.lost_connections_lose_no_word(lambda flags: [program, *flags], envoy, heard_live)


def test_a_page_calls_with_grpc_web(envoy: str) -> None:
    method = f"http://{envoy}/tandem.asr.v1.AsrService/GetCapabilities"
    preflight = httpx.options(
        method, headers={"origin": PAGE, "access-control-request-method": "POST"}, timeout=10
    )
    assert preflight.headers["access-control-allow-origin"] == PAGE
    message = pb.GetCapabilitiesRequest().SerializeToString()
    answer = httpx.post(
        method,
        content=struct.pack(">BI", 0, len(message)) + message,
        headers={"content-type": "application/grpc-web+proto", "x-grpc-web": "1", "origin": PAGE},
        timeout=10,
    )
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/grpc-web+proto"
    flags, length = struct.unpack(">BI", answer.content[:5])
    assert flags == 0
    assert pb.GetCapabilitiesResponse.FromString(answer.content[5 : 5 + length]).streaming
    assert b"grpc-status:0" in answer.content[5 + length :].replace(b" ", b"")
