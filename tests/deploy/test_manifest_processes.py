"""The chart's containers as local processes: every flag is parsed, every port and probe answers."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import decoder_service.config
import encoder_service.config
import gateway.config
from tandem import Client, RecognizeOptions
from tandem.launcher import Tier, is_ready, spawn, wait_ready
from tests.deploy.chart import EVERYTHING, TIERS, VARIANTS, Manifest, container, find, flag, render
from tests.support.ports import free_port
from tests.support.recordings import vad_weights
from tests.support.services import NANO

PARSERS: dict[str, Callable[[list[str]], Any]] = {
    "gateway": gateway.config.parse,
    "encoder": encoder_service.config.parse,
    "decoder": decoder_service.config.parse,
}


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_flag_is_one_that_the_program_knows(
    tier: str, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = container(render(VARIANTS[variant]), tier)
    module = {"gateway": "gateway", "encoder": "encoder_service", "decoder": "decoder_service"}[tier]
    assert item["command"] == ["python", "-m", module]
    for variable in item["env"]:
        monkeypatch.setenv(variable["name"], variable["value"])
    config = PARSERS[tier](item["args"])
    ports = {port["name"]: port["containerPort"] for port in item["ports"]}
    assert ports["grpc"] == int(flag(item["args"], "listen").rpartition(":")[2])  # type: ignore[union-attr]
    assert ports["metrics"] == config.metrics_port
    if tier == "gateway":
        assert ports["http"] == config.http_port
        assert ports["realtime"] == config.realtime_port


@pytest.mark.parametrize("tier", TIERS)
def test_files_that_flags_name_are_mounted(tier: str) -> None:
    item = container(render(EVERYTHING), tier)
    mounted = [mount["mountPath"] for mount in item["volumeMounts"]]
    for argument in item["args"]:
        for path in re.findall(r"=(/etc/\S+)", argument):
            assert any(path.startswith(f"{mount}/") for mount in mounted), argument


def test_targets_are_services_of_the_chart() -> None:
    manifests = render({})
    for tier, behind in (("gateway", "encoder"), ("encoder", "decoder")):
        target = flag(container(manifests, tier)["args"], behind)
        service = find(manifests, "Service", f"{behind}-headless")
        ports = {port["name"]: port["port"] for port in service["spec"]["ports"]}
        assert target == f"dns:///{service['metadata']['name']}:{ports['grpc']}"


@dataclass(frozen=True, slots=True)
class Pods:
    """Containers that run as processes here."""

    containers: dict[str, Manifest]

    def port(self, tier: str, name: str) -> int:
        (port,) = (item for item in self.containers[tier]["ports"] if item["name"] == name)
        return int(port["containerPort"])


def _values() -> dict[str, Any]:
    """CPU, the small checkpoint, and ports that are free here."""
    return {
        "model": {"name": str(NANO), "cache": {"enabled": False}},
        "shutdown": {"lameduckSeconds": 0, "drainSeconds": 5},
        "gateway": {"ports": {"grpc": free_port(), "http": free_port(), "realtime": free_port()}},
        "encoder": {"ports": {"grpc": free_port()}, "gpus": 0, "dtype": "fp32"},
        "decoder": {
            "ports": {"grpc": free_port()},
            "tensorParallel": 0,
            "engine": "transformers",
            "dtype": "fp32",
            "maxModelLen": 1024,
        },
    }


def _start(tier: str, item: Manifest, metrics_port: int, logs: Path) -> Tier:
    """The container's own command line and variables; only what cannot be the same here is replaced."""
    arguments = [re.sub(r"dns:///[\w-]+:", "dns:///localhost:", argument) for argument in item["args"]]
    arguments = [re.sub(r"(?<=--metrics-port=).*", str(metrics_port), argument) for argument in arguments]
    if tier == "gateway":
        arguments.append(f"--vad-model={vad_weights()}")
    address = f"127.0.0.1:{(flag(arguments, 'listen') or '').rpartition(':')[2]}"
    with pytest.MonkeyPatch.context() as patch:
        for variable in item["env"]:
            value = re.sub(r"^/(tmp|cache)$", rf"{logs}/\1", variable["value"])
            patch.setenv(variable["name"], value)
        return spawn(tier, item["command"][2], arguments, address, logs)


@pytest.fixture(scope="module")
def pods(derived_files: None) -> Iterator[Pods]:
    manifests = render(_values())
    containers = {tier: container(manifests, tier) for tier in TIERS}
    with tempfile.TemporaryDirectory(prefix="tandem-pods-") as directory:
        tiers: list[Tier] = []
        try:
            for tier in reversed(TIERS):
                port = free_port()
                tiers.append(_start(tier, containers[tier], port, Path(directory)))
                (metrics,) = (item for item in containers[tier]["ports"] if item["name"] == "metrics")
                metrics["containerPort"] = port
            wait_ready(tiers, timeout=180)
            yield Pods(containers)
        finally:
            for running in tiers:
                running.process.terminate()
            for running in tiers:
                running.end(grace=10)


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("probe", ["startupProbe", "livenessProbe", "readinessProbe"])
def test_probes_answer(pods: Pods, tier: str, probe: str) -> None:
    asked = pods.containers[tier][probe]["grpc"]
    request = health_pb2.HealthCheckRequest(service=asked.get("service", ""))
    with grpc.insecure_channel(f"127.0.0.1:{asked['port']}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        assert stub.Check(request, timeout=10).status == health_pb2.HealthCheckResponse.SERVING


def test_ports_answer(pods: Pods) -> None:
    for tier in TIERS:
        metrics = httpx.get(f"http://127.0.0.1:{pods.port(tier, 'metrics')}/metrics")
        assert "tandem_requests" in metrics.text
        assert is_ready(f"127.0.0.1:{pods.port(tier, 'grpc')}")
    assert httpx.get(f"http://127.0.0.1:{pods.port('gateway', 'http')}/ready").status_code == 200
    realtime = httpx.get(f"http://127.0.0.1:{pods.port('gateway', 'realtime')}/")
    assert realtime.status_code == 426


def test_a_recording_passes_through(pods: Pods) -> None:
    with Client(f"127.0.0.1:{pods.port('gateway', 'grpc')}") as client:
        options = RecognizeOptions(vad=False, max_new_tokens=3)
        assert client.recognize(NANO / "mandarin_206ms.wav", options, timeout=60).segments


def test_the_fetch_job_knows_its_command() -> None:
    from tandem.cli import build_parser

    job = find(render({}), "Job", "model-fetch")["spec"]["template"]["spec"]["containers"][0]
    program, arguments = job["command"][0], [*job["command"][1:], *job["args"]]
    assert program == "tandem"
    parsed = build_parser().parse_args(arguments)
    assert parsed.model == "FunAudioLLM/Fun-ASR-Nano-2512"
    assert Path(sys.executable).with_name(program).is_file()
