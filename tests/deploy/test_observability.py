"""Alerts and dashboard: tested by Prometheus's own tool, and on no metric that does not exist.

docs/metrics.md is the list of names; tests/integration/test_metrics.py holds it to real processes.
"""

from __future__ import annotations

import re
import runpy
import subprocess
from typing import Any

import pytest
import yaml

from tests.deploy.chart import ROOT

RULES = ROOT / "deploy" / "prometheus" / "tandem.rules.yaml"
GRAFANA = ROOT / "deploy" / "grafana"


def documented() -> set[str]:
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    return set(re.findall(r"`(tandem_\w+)`", text))


def used(expression: str) -> set[str]:
    """Names of our metrics in a query, as the page lists them."""
    names = set(re.findall(r"\btandem_\w+", expression))
    return {re.sub(r"_(bucket|count|sum)$", "", name) for name in names}


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    built: dict[str, Any] = runpy.run_path(str(GRAFANA / "dashboard.py"))["dashboard"]()
    return built


def test_every_alert_fires_when_it_should_and_only_then() -> None:
    tool = ["promtool", "test", "rules", str(RULES.with_name("tandem.test.yaml"))]
    done = subprocess.run(tool, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_test_of_firing_and_of_silence() -> None:
    rules = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"][0]["rules"]
    tests = yaml.safe_load(RULES.with_name("tandem.test.yaml").read_text(encoding="utf-8"))["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    for rule in rules:
        outcomes = {bool(case["exp_alerts"]) for case in cases if case["alertname"] == rule["alert"]}
        assert outcomes == {True, False}, rule["alert"]


def test_alerts_use_only_metrics_that_exist() -> None:
    rules = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"][0]["rules"]
    for rule in rules:
        assert used(rule["expr"]) <= documented(), rule["alert"]


def test_the_dashboard_file_is_what_its_script_writes() -> None:
    script = runpy.run_path(str(GRAFANA / "dashboard.py"))
    assert (GRAFANA / "tandem.json").read_text(encoding="utf-8") == script["text"]()


def test_the_dashboard_shows_only_metrics_that_exist_and_nearly_all_of_them(
    dashboard: dict[str, Any],
) -> None:
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    shown = set().union(*(used(query) for query in queries))
    assert shown <= documented()
    limits = {name for name in documented() if "_max_" in name}
    assert len(documented() - shown - limits) < 10


def test_queries_are_valid_for_prometheus(dashboard: dict[str, Any], tmp_path: Any) -> None:
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    rules = [{"record": f"q{number}", "expr": query} for number, query in enumerate(queries)]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}), encoding="utf-8")
    done = subprocess.run(
        ["promtool", "check", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_panels_fill_the_grid_without_overlap(dashboard: dict[str, Any]) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
