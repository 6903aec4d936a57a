"""Dockerfiles, the compose file and the Kustomize overlay, held to the programs that they start."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import decoder_service.config
import encoder_service.config
import gateway.config
from tests.deploy.chart import KUBERNETES, ROOT, TIERS, tool, validate

DOCKER = ROOT / "deploy" / "docker"
KUSTOMIZE = ROOT / "deploy" / "kustomize"
MODULES = {"gateway": "gateway", "encoder": "encoder_service", "decoder": "decoder_service"}
PARSERS: dict[str, Callable[[list[str]], Any]] = {
    "gateway": gateway.config.parse,
    "encoder": encoder_service.config.parse,
    "decoder": decoder_service.config.parse,
}


def default_ports(tier: str) -> set[int]:
    """Ports that a tier opens when nobody says otherwise."""
    config = PARSERS[tier](["--model=x"] if tier != "gateway" else [])
    if tier == "decoder":
        return {config.port}
    grpc = int(config.listen.rpartition(":")[2])
    return {grpc, config.http_port, config.realtime_port} if tier == "gateway" else {grpc}


@pytest.mark.parametrize("tier", TIERS)
def test_hadolint_finds_nothing(tier: str) -> None:
    program = Path(sys.executable).with_name("hadolint")
    file = DOCKER / f"{tier}.Dockerfile"
    done = subprocess.run([str(program), str(file)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("tier", TIERS)
def test_an_image_starts_its_tier_without_privileges(tier: str) -> None:
    text = (DOCKER / f"{tier}.Dockerfile").read_text(encoding="utf-8")
    (command,) = re.findall(r"^CMD (\[.*\])$", text, re.M)
    assert json.loads(command) == ["python", "-m", MODULES[tier]]
    (user,) = re.findall(r"^USER (\d+):\d+$", text, re.M)
    assert int(user) > 0
    (exposed,) = re.findall(r"^EXPOSE (.*)$", text, re.M)
    assert {int(port) for port in exposed.split()} == default_ports(tier)
    (probed,) = re.findall(r"is_ready\('127\.0\.0\.1:(\d+)'\)", text)
    assert int(probed) in default_ports(tier)


@pytest.mark.parametrize("tier", TIERS)
def test_images_copy_what_the_build_context_lets_through(tier: str) -> None:
    kept = [
        line[1:]
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    ]
    assert all((ROOT / path).exists() for path in kept)
    text = (DOCKER / f"{tier}.Dockerfile").read_text(encoding="utf-8")
    for path in re.findall(r"(?:-c |python )((?:requirements|scripts)/\S+)", text):
        assert any(path == item or path.startswith(f"{item}/") for item in kept), path


@pytest.mark.parametrize("tier", TIERS)
def test_compose_starts_each_tier_with_flags_that_it_knows(tier: str) -> None:
    file = yaml.safe_load((ROOT / "deploy" / "compose" / "compose.yaml").read_text(encoding="utf-8"))
    service = file["services"][tier]
    assert service["command"][:3] == ["python", "-m", MODULES[tier]]
    config = PARSERS[tier](service["command"][3:])
    grace = float(service["stop_grace_period"].removesuffix("s"))
    assert grace > config.drain_seconds + config.lameduck_seconds
    assert (ROOT / service["build"]["dockerfile"]).is_file()
    for port in service.get("ports", ()):
        assert int(port.partition(":")[2]) in default_ports(tier)
    for behind in {"gateway": ["encoder"], "encoder": ["decoder"], "decoder": []}[tier]:
        host, _, port = getattr(config, behind).partition(":")
        assert host == behind
        assert int(port) in default_ports(behind)


def test_compose_lets_a_model_take_its_time() -> None:
    """Waiting for a healthy tier fails the start when a first download outlasts its health check."""
    file = yaml.safe_load((ROOT / "deploy" / "compose" / "compose.yaml").read_text(encoding="utf-8"))
    for tier in TIERS:
        before = file["services"][tier].get("depends_on", [])
        waits = {entry["condition"] for entry in before.values()} if isinstance(before, dict) else set()
        assert waits <= {"service_started"}, tier


@pytest.mark.parametrize("tier", TIERS)
def test_a_new_volume_belongs_to_the_user_of_the_image(tier: str) -> None:
    file = yaml.safe_load((ROOT / "deploy" / "compose" / "compose.yaml").read_text(encoding="utf-8"))
    mounted = {volume.partition(":")[2] for volume in file["services"][tier].get("volumes", ())}
    text = (DOCKER / f"{tier}.Dockerfile").read_text(encoding="utf-8")
    (user,) = re.findall(r"^USER (\d+):\d+$", text, re.M)
    made = re.findall(rf"^RUN install -d -o {user} -g {user} (.*)$", text, re.M)
    assert mounted == {path for paths in made for path in paths.split()}


def test_the_base_is_the_chart() -> None:
    before = (KUSTOMIZE / "base" / "tandem.yaml").read_text(encoding="utf-8")
    chart = ROOT / "deploy" / "helm" / "tandem"
    command = [str(tool("helm4")), "template", "tandem", str(chart), "--no-hooks"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == before, "run deploy/kustomize/render.sh"


def test_the_overlay_is_valid_and_complete(tmp_path: Path) -> None:
    overlay = KUSTOMIZE / "overlays" / "production"
    built = subprocess.run(
        [str(tool("kubectl")), "kustomize", str(overlay)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "HOME": str(tmp_path)},
    ).stdout
    manifests = list(yaml.safe_load_all(built))
    for manifest in manifests:
        for version in KUBERNETES:
            validate(manifest, version)
    assert {item["metadata"]["namespace"] for item in manifests} == {"speech"}
    caches = [
        {entry["name"]: entry["value"] for entry in part["env"] if entry["value"].startswith("/models")}
        for item in manifests
        if item["metadata"]["name"] in ("tandem-model-fetch", "tandem-encoder", "tandem-decoder")
        and item["kind"] in ("Deployment", "Job")
        for part in item["spec"]["template"]["spec"]["containers"]
    ]
    assert caches == [{"HF_HOME": "/models/hf", "MODELSCOPE_CACHE": "/models/ms"}] * 3
    claims = {item["metadata"]["name"] for item in manifests if item["kind"] == "PersistentVolumeClaim"}
    replicas = {}
    for item in manifests:
        if item["kind"] not in ("Deployment", "Job"):
            continue
        pod = item["spec"]["template"]["spec"]
        assert all(part["image"].startswith("registry.example/") for part in pod["containers"])
        bound = [
            volume["persistentVolumeClaim"] for volume in pod["volumes"] if "persistentVolumeClaim" in volume
        ]
        assert {claim["claimName"] for claim in bound} <= claims
        if item["kind"] == "Deployment":
            replicas[item["metadata"]["name"]] = item["spec"]["replicas"]
    assert replicas == {"tandem-gateway": 3, "tandem-encoder": 2, "tandem-decoder": 4}
