"""The RayJob example: valid for KubeRay and Kubernetes, its command known to the program, its image ours."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tandem.cli import build_parser
from tests.deploy.chart import KUBERNETES, ROOT, find, render, validate

JOB = ROOT / "deploy" / "ray" / "rayjob.yaml"


@pytest.fixture
def job() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(JOB.read_text(encoding="utf-8"))
    return loaded


def pods(job: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


def test_it_is_valid(job: dict[str, Any]) -> None:
    validate(job)
    for spec in pods(job):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "node"}, "spec": spec}
        for version in KUBERNETES:
            validate(pod, version)


def test_its_command_is_known_and_finds_gateway_and_volume(job: dict[str, Any]) -> None:
    program, *arguments = shlex.split(job["spec"]["entrypoint"])
    assert program == "tandem"
    options = build_parser().parse_args(arguments)
    assert options.command == "bulk"
    gateway = find(render({}), "Service", "gateway-headless")
    port = {item["name"]: item["port"] for item in gateway["spec"]["ports"]}["grpc"]
    assert options.server == f"dns:///tandem-gateway-headless:{port}"
    for spec in pods(job):
        mounts = [mount["mountPath"] for item in spec["containers"] for mount in item["volumeMounts"]]
        for path in (*options.manifest, str(options.output)):
            assert any(path.startswith(f"{mount}/") for mount in mounts), path


def test_job_image_and_installation_have_one_version_of_ray(job: dict[str, Any]) -> None:
    version = job["spec"]["rayClusterSpec"]["rayVersion"]
    text = (ROOT / "deploy" / "docker" / "bulk.Dockerfile").read_text(encoding="utf-8")
    (base,) = re.findall(r"^ARG BASE=rayproject/ray:([\d.]+)-py311$", text, re.M)
    (pinned,) = re.findall(
        r"^ray==(.*)$", (ROOT / "requirements" / "constraints.txt").read_text("utf-8"), re.M
    )
    assert version == base == pinned


def test_hadolint_finds_nothing_in_its_image() -> None:
    program = Path(sys.executable).with_name("hadolint")
    file = ROOT / "deploy" / "docker" / "bulk.Dockerfile"
    done = subprocess.run([str(program), str(file)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout
