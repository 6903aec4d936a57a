"""Renders the chart with the real Helm and finds things in what comes out."""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

from scripts.fetch_deploy_tools import fetch
from tests.support.locks import alone

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "tandem"
TIERS = ("gateway", "encoder", "decoder")
SCHEMAS = Path(__file__).with_name("schemas")
"""Of the fields of custom resources that we use."""
KUBERNETES = ("1.29.0", "1.33.0", "1.37.0")
RELEASE, NAMESPACE = "speech", "asr"

Manifest = dict[str, Any]

EVERYTHING: dict[str, Any] = {
    "envoy": {"enabled": True},
    "tls": {"enabled": True, "existingSecret": "certificates"},
    "auth": {"existingSecret": "api-keys"},
    "metrics": {"serviceMonitor": {"enabled": True}},
    "gateway": {"autoscaling": {"enabled": True}, "corsOrigins": ["https://page.example"]},
    "encoder": {"autoscaling": {"enabled": True}},
    "decoder": {"autoscaling": {"enabled": True}, "tensorParallel": 4},
    "model": {"fetchJob": {"tokenSecret": "hub"}},
    "ingress": {
        name: {"enabled": True, "host": f"{name}.example", "tlsSecret": f"{name}-tls"}
        for name in ("http", "grpc", "realtime")
    },
}
"""Values that turn every part of the chart on."""

BARE: dict[str, Any] = {
    "model": {"cache": {"enabled": False}, "name": "/models/demo"},
    "networkPolicy": {"enabled": False},
    "encoder": {"gpus": 0},
    "decoder": {"tensorParallel": 0, "engine": "transformers"},
}
"""Values that turn everything off that can be: no GPU, no cache."""

VARIANTS: dict[str, dict[str, Any]] = {"default": {}, "everything": EVERYTHING, "bare": BARE}


@functools.cache
def tool(name: str) -> Path:
    """helm3, helm4 or kubectl."""
    with alone("deploy-tools"):
        return fetch()[name]


def helm(version: str, *arguments: str, values: Mapping[str, Any]) -> subprocess.CompletedProcess[str]:
    """Run Helm on the chart with these values."""
    return subprocess.run(
        [str(tool(version)), *arguments, "-f", "-"],
        input=json.dumps(values),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def render_text(values: Mapping[str, Any], version: str = "helm4") -> str:
    """The manifests as text. Fails with Helm's message."""
    done = helm(version, "template", RELEASE, str(CHART), "--namespace", NAMESPACE, values=values)
    assert done.returncode == 0, done.stderr
    return done.stdout


def render(values: Mapping[str, Any], version: str = "helm4") -> list[Manifest]:
    return [document for document in yaml.safe_load_all(render_text(values, version)) if document]


def find(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    """The one manifest of this kind whose name ends so."""
    (found,) = (
        item for item in manifests if item["kind"] == kind and item["metadata"]["name"].endswith(f"-{name}")
    )
    return found


def validate(manifest: Manifest, kubernetes: str = KUBERNETES[-1]) -> None:
    """Raise jsonschema.ValidationError for what that version, or the operator of its kind, would refuse.

    Unknown fields are refused too. Raises SchemaNotFoundError for a kind or version of it that is not known.
    """
    schema = SCHEMAS / f"{manifest['kind']}.json"
    if schema.is_file():
        jsonschema.validate(manifest, json.loads(schema.read_text(encoding="utf-8")))
    else:
        kubernetes_validate.validate(manifest, kubernetes, strict=True)


def container(manifests: list[Manifest], tier: str) -> Manifest:
    """The container of a tier's Deployment."""
    (only,) = find(manifests, "Deployment", tier)["spec"]["template"]["spec"]["containers"]
    found: Manifest = only
    return found


def flag(arguments: list[str], name: str) -> str | None:
    """The value of --name=value."""
    for argument in arguments:
        if argument.startswith(f"--{name}="):
            return argument.partition("=")[2]
    return None
