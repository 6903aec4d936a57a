"""The Helm chart: rendered by two Helms, validated strictly, and its promises checked in what comes out."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tandem.checkpoint import OFFLINE
from tandem.cli import build_parser
from tandem.cli.plan import helm_values
from tandem.plan import Demand, Target, load_costs, make_plan
from tandem.plan.cost_file import packaged_names
from tests.deploy.chart import (
    BARE,
    CHART,
    EVERYTHING,
    KUBERNETES,
    NAMESPACE,
    TIERS,
    VARIANTS,
    Manifest,
    container,
    find,
    flag,
    helm,
    render,
    render_text,
    validate,
)

PAIRS = {"gateway": "envoy", "encoder": "gateway", "decoder": "encoder"}


@pytest.mark.parametrize("version", ["helm3", "helm4"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_lint_is_clean_and_both_helms_agree(version: str, variant: str) -> None:
    done = helm(version, "lint", str(CHART), "--strict", values=VARIANTS[variant])
    assert done.returncode == 0, done.stdout + done.stderr
    assert render(VARIANTS[variant], version) == render(VARIANTS[variant])


@pytest.mark.parametrize("kubernetes", KUBERNETES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_manifests_are_valid(variant: str, kubernetes: str) -> None:
    for manifest in render(VARIANTS[variant]):
        validate(manifest, kubernetes)


@pytest.mark.parametrize("kind", ["Deployment", "ScaledObject", "ServiceMonitor"])
def test_a_field_that_nobody_knows_is_found(kind: str) -> None:
    manifest = next(item for item in render(EVERYTHING) if item["kind"] == kind)
    manifest["spec"]["replcas"] = 2
    with pytest.raises(jsonschema.ValidationError):
        validate(manifest)


@pytest.mark.parametrize(
    "wrong",
    [
        {"decoder": {"tensorParallel": 3}},
        {"gateway": {"replica": 2}},
        {"tls": {"enabled": True}},
        {"model": {"hub": "s3"}},
        {"encoder": {"ports": {"grpc": 0}}},
        {"gateway": {"extraArgs": ["log-level=DEBUG"]}},
    ],
)
def test_wrong_values_are_refused_by_the_schema(wrong: dict[str, Any]) -> None:
    done = helm("helm4", "template", "x", str(CHART), values=wrong)
    assert done.returncode != 0
    assert "schema" in done.stderr


@pytest.mark.parametrize("tier", TIERS)
def test_any_flag_and_variable_of_a_program_can_be_given(tier: str) -> None:
    variable = {"name": "OMP_NUM_THREADS", "value": "4"}
    item = container(render({tier: {"extraArgs": ["--log-level=DEBUG"], "env": [variable]}}), tier)
    assert item["args"][-1] == "--log-level=DEBUG"
    assert variable in item["env"]


@pytest.mark.parametrize("costs", packaged_names())
def test_the_values_of_a_plan_are_those_of_the_chart(costs: str) -> None:
    measured = load_costs(costs)
    plan = make_plan(measured, Demand(live_streams=300, audio_hours=2000), Target())
    manifests = render(helm_values(plan, measured))
    for tier in TIERS:
        spec = find(manifests, "Deployment", tier)["spec"]
        assert spec["replicas"] == getattr(plan, tier).replicas
    gateway = container(manifests, "gateway")
    assert gateway["resources"]["requests"]["cpu"] == str(plan.cores)
    assert flag(gateway["args"], "max-sessions") == str(plan.max_sessions)
    gpus = int(container(manifests, "decoder")["resources"]["limits"].get("nvidia.com/gpu", 0))
    assert gpus * plan.decoder.replicas == plan.decoder.gpus


@pytest.mark.parametrize("count", [1, 4])
def test_a_decoder_pod_gets_the_gpus_of_its_tensor_parallel(count: int) -> None:
    decoder = container(render({"decoder": {"tensorParallel": count}}), "decoder")
    assert decoder["resources"]["limits"]["nvidia.com/gpu"] == count
    assert flag(decoder["args"], "tensor-parallel-size") == str(count)


def test_without_gpus_nothing_asks_for_one() -> None:
    assert "nvidia.com/gpu:" not in render_text(BARE)


@pytest.mark.parametrize("tier", TIERS)
def test_a_pod_outlives_its_drain(tier: str) -> None:
    values = {"shutdown": {"lameduckSeconds": 7, "drainSeconds": 90}}
    manifests = render(values)
    arguments = container(manifests, tier)["args"]
    needed = float(flag(arguments, "lameduck-seconds") or 0) + float(flag(arguments, "drain-seconds") or 0)
    spec = find(manifests, "Deployment", tier)["spec"]["template"]["spec"]
    assert needed == 97
    assert needed < spec["terminationGracePeriodSeconds"] <= needed + 15


@pytest.mark.parametrize("tier", TIERS)
def test_pods_are_locked_down_and_spread(tier: str) -> None:
    spec = find(render(EVERYTHING), "Deployment", tier)["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert not spec["automountServiceAccountToken"]
    (only,) = spec["containers"]
    assert only["securityContext"]["readOnlyRootFilesystem"]
    assert only["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    spread = {item["topologyKey"] for item in spec["topologySpreadConstraints"]}
    assert spread == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}
    mounts = {mount["name"] for mount in only["volumeMounts"]}
    assert mounts == {volume["name"] for volume in spec["volumes"]}


def test_selectors_find_their_pods() -> None:
    manifests = render(EVERYTHING)
    pods = {
        tier: find(manifests, "Deployment", tier)["spec"]["template"]["metadata"]["labels"] for tier in TIERS
    }

    def chosen(selector: dict[str, str]) -> list[str]:
        return [tier for tier, labels in pods.items() if selector.items() <= labels.items()]

    for tier in TIERS:
        budget = find(manifests, "PodDisruptionBudget", tier)
        assert chosen(budget["spec"]["selector"]["matchLabels"]) == [tier]
        service = find(manifests, "Service", f"{tier}-headless")
        assert service["spec"]["clusterIP"] == "None"
        assert chosen(service["spec"]["selector"]) == [tier]


@pytest.mark.parametrize("tier", ["encoder", "decoder"])
def test_only_the_tier_in_front_gets_in(tier: str) -> None:
    policy = find(render({}), "NetworkPolicy", tier)["spec"]
    callers, monitoring = policy["ingress"]
    (source,) = callers["from"]
    assert source["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == PAIRS[tier]
    assert [port["port"] for port in callers["ports"]] == ["grpc"]
    assert [port["port"] for port in monitoring["ports"]] == ["metrics"]
    assert policy["policyTypes"] == ["Ingress"]


@pytest.mark.parametrize("nobody", [[], None], ids=["empty", "null"])
def test_without_readers_of_metrics_nobody_gets_to_them(nobody: list[Any] | None) -> None:
    """A rule without sources would let everybody in."""
    manifests = render({"networkPolicy": {"metricsFrom": nobody}})
    for tier in TIERS:
        (callers,) = find(manifests, "NetworkPolicy", tier)["spec"]["ingress"]
        assert "metrics" not in [port["port"] for port in callers["ports"]]
        assert tier == "gateway" or callers["from"], "the gateway alone is open to all"


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize(
    ("given", "rendered"),
    [
        ({}, {"maxUnavailable": 1}),
        ({"maxUnavailable": "30%"}, {"maxUnavailable": "30%"}),
        ({"minAvailable": 1}, {"minAvailable": 1}),
        ({"minAvailable": 0}, {"minAvailable": 0}),
        ({"minAvailable": "50%", "maxUnavailable": 2}, {"minAvailable": "50%"}),
    ],
)
def test_a_budget_has_one_of_its_two_limits(tier: str, given: dict[str, Any], rendered: Manifest) -> None:
    """The API server refuses both in one, and values of the chart's defaults stay where others are given."""
    budget = find(render({tier: {"pdb": given}}), "PodDisruptionBudget", tier)
    assert {name: value for name, value in budget["spec"].items() if name != "selector"} == rendered
    validate(budget)


def test_a_tier_without_a_limit_has_no_budget() -> None:
    manifests = render({"encoder": {"pdb": {"maxUnavailable": None}}})
    budgets = [item["metadata"]["name"] for item in manifests if item["kind"] == "PodDisruptionBudget"]
    assert budgets == ["speech-tandem-gateway", "speech-tandem-decoder"]


LARGE = 2_000_000
"""Numbers of values files are floating point to Helm, which writes those of a million and more as 1e+06."""


def _with_large_numbers(values: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """These values, and LARGE for each number that the schema sets no upper bound."""
    found = dict(values)
    for name, entry in schema["properties"].items():
        if "properties" in entry:
            found[name] = _with_large_numbers(values.get(name, {}), entry)
        elif entry.get("type") in ("integer", "number") and "maximum" not in entry:
            found[name] = LARGE
    return found


@pytest.mark.parametrize("version", ["helm3", "helm4"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_large_numbers_stay_whole(version: str, variant: str) -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    values = _with_large_numbers(VARIANTS[variant], schema)
    for tier in TIERS:
        values[tier]["pdb"] = {"maxUnavailable": LARGE}
    text = render_text(values, version)
    assert not re.findall(r".*\d[eE]\+\d.*", text)
    manifests = [manifest for manifest in yaml.safe_load_all(text) if manifest]
    for manifest in manifests:
        validate(manifest)
    assert flag(container(manifests, "gateway")["args"], "max-sessions") == str(LARGE)
    assert flag(container(manifests, "encoder")["args"], "max-queued-seconds") == str(LARGE)
    assert flag(container(manifests, "decoder")["args"], "max-waiting-requests") == str(LARGE)


def test_a_pod_needs_no_limit_but_its_gpus() -> None:
    values = {tier: {"resources": {"limits": {"memory": None}}} for tier in TIERS}
    manifests = render(values)
    limits = {tier: container(manifests, tier)["resources"]["limits"] for tier in TIERS}
    assert limits == {"gateway": {}, "encoder": {"nvidia.com/gpu": 1}, "decoder": {"nvidia.com/gpu": 1}}


def test_scaling_follows_queues_and_leaves_replicas_alone() -> None:
    manifests = render(EVERYTHING)
    for tier in TIERS:
        assert "replicas" not in find(manifests, "Deployment", tier)["spec"]
    for tier, metric in (
        ("encoder", "tandem_encoder_queued_audio_seconds"),
        ("decoder", "tandem_decoder_waiting_requests"),
    ):
        scaled = find(manifests, "ScaledObject", tier)["spec"]
        name = find(manifests, "Deployment", tier)["metadata"]["name"]
        assert scaled["scaleTargetRef"] == {"name": name}
        assert scaled["minReplicaCount"] <= scaled["maxReplicaCount"]
        (trigger,) = scaled["triggers"]
        assert trigger["type"] == "prometheus"
        assert trigger["metadata"]["query"] == f'sum({metric}{{namespace="{NAMESPACE}", pod=~"{name}-.*"}})'
        assert float(trigger["metadata"]["threshold"]) > 0
    cpu = find(manifests, "HorizontalPodAutoscaler", "gateway")["spec"]
    assert cpu["scaleTargetRef"]["name"] == find(manifests, "Deployment", "gateway")["metadata"]["name"]


def test_monitors_read_a_port_that_services_have() -> None:
    manifests = render(EVERYTHING)
    for tier in TIERS:
        monitor = find(manifests, "ServiceMonitor", tier)["spec"]
        (endpoint,) = monitor["endpoints"]
        service = find(manifests, "Service", tier if tier == "gateway" else f"{tier}-headless")
        assert endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]
        assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()


def test_the_model_is_fetched_before_anything_starts() -> None:
    manifests = render(EVERYTHING)
    claim, job = find(manifests, "PersistentVolumeClaim", "models"), find(manifests, "Job", "model-fetch")
    weights = [int(item["metadata"]["annotations"]["helm.sh/hook-weight"]) for item in (claim, job)]
    assert weights[0] < weights[1]
    fetch = job["spec"]["template"]["spec"]["containers"][0]
    serve = container(manifests, "encoder")

    def variables(item: Manifest) -> dict[str, str]:
        return {entry["name"]: entry.get("value", "") for entry in item["env"]}

    assert variables(fetch)["HF_HOME"] == variables(serve)["HF_HOME"]
    assert variables(serve)["HF_HUB_OFFLINE"] == variables(serve)[OFFLINE] == "1"
    assert fetch["args"][0] == flag(serve["args"], "model")
    assert "HF_TOKEN" in variables(fetch)


@pytest.mark.parametrize("name", ["models", "model-fetch"])
def test_what_has_been_fetched_outlives_upgrades(name: str) -> None:
    manifests = render({})
    kind = "PersistentVolumeClaim" if name == "models" else "Job"
    policy = find(manifests, kind, name)["metadata"]["annotations"]["helm.sh/hook-delete-policy"]
    assert policy == {"models": "hook-failed", "model-fetch": "before-hook-creation"}[name]


def test_batches_leave_room_where_uploads_wait() -> None:
    gateway = find(render({}), "Deployment", "gateway")["spec"]["template"]["spec"]
    (tmp,) = (volume["emptyDir"] for volume in gateway["volumes"] if volume["name"] == "tmp")
    spool = int(flag(gateway["containers"][0]["args"], "batch-spool-bytes") or 0)
    assert tmp["sizeLimit"] == "8Gi"
    assert 0 < spool <= 4 << 30


@pytest.mark.parametrize("encrypted", [False, True])
def test_what_a_port_speaks_is_told(encrypted: bool) -> None:
    service = find(render(EVERYTHING if encrypted else {}), "Service", "gateway")
    told = {port["name"]: port.get("appProtocol") for port in service["spec"]["ports"]}
    spoken = (
        ("https", "https", "kubernetes.io/wss")
        if encrypted
        else ("kubernetes.io/h2c", "http", "kubernetes.io/ws")
    )
    assert (told["grpc"], told["http"], told["realtime"]) == spoken


def test_ingress_leads_to_ports_that_the_service_has() -> None:
    manifests = render(EVERYTHING)
    ports = {port["name"] for port in find(manifests, "Service", "gateway")["spec"]["ports"]}
    for name in ("http", "grpc", "realtime"):
        ingress = find(manifests, "Ingress", f"gateway-{name}")["spec"]
        backend = ingress["rules"][0]["http"]["paths"][0]["backend"]["service"]
        assert backend["port"]["name"] in ports
        assert ingress["tls"][0]["hosts"] == [ingress["rules"][0]["host"]]


@pytest.mark.parametrize("name", ["http", "grpc", "realtime"])
def test_an_ingress_tells_its_controller_what_it_needs(name: str) -> None:
    told = {"nginx.ingress.kubernetes.io/proxy-body-size": "513m"}
    rule = {"enabled": True, "host": "speech.example", "annotations": told}
    ingress = find(render({"ingress": {name: rule}}), "Ingress", f"gateway-{name}")
    assert ingress["metadata"]["annotations"] == told


@pytest.mark.parametrize("values", [EVERYTHING, {"envoy": {"enabled": True}}], ids=["tls", "plain"])
def test_envoy_takes_its_configuration(values: dict[str, Any], tmp_path: Path) -> None:
    text = find(render(values), "ConfigMap", "envoy")["data"]["envoy.yaml"]
    if "/etc/tandem/tls" in text:
        from tests.support.certificates import Authority

        issued = Authority(tmp_path, "ca").issue("own")
        shutil.copy(issued.cert, tmp_path / "tls.crt")
        shutil.copy(issued.key, tmp_path / "tls.key")
        shutil.copy(tmp_path / "ca.pem", tmp_path / "ca.crt")
        text = text.replace("/etc/tandem/tls", str(tmp_path))
    file = tmp_path / "envoy.yaml"
    file.write_text(text, encoding="utf-8")
    envoy = Path(sys.executable).with_name("envoy")
    done = subprocess.run(
        [str(envoy), "--mode", "validate", "-c", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_notes_name_commands_that_exist() -> None:
    notes = (CHART / "templates" / "NOTES.txt").read_text(encoding="utf-8")
    commands = re.findall(r"^\s*tandem (.*)$", re.sub(r"\{\{.*?\}\}", "50051", notes), re.M)
    assert commands
    for command in commands:
        assert build_parser().parse_args(command.split()).server == "localhost:50051"
