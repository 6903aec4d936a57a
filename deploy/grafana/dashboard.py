"""Writes tandem.json, the Grafana dashboard: `python deploy/grafana/dashboard.py`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TARGET = Path(__file__).with_name("tandem.json")
SOURCE = {"type": "prometheus", "uid": "${source}"}
WIDTH, HEIGHT = 8, 8


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph: title, unit, and queries with their legends."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]


def quantile(metric: str, by: str, share: float = 0.95, where: str = "") -> str:
    """A percentile over five minutes of a histogram, for each value of a label."""
    return f"histogram_quantile({share}, sum by (le, {by}) (rate({metric}_bucket{where}[5m])))"


def rate(metric: str, by: str, where: str = "") -> str:
    return f"sum by ({by}) (rate({metric}{where}[1m]))"


ROWS: dict[str, tuple[Panel, ...]] = {
    "Traffic": (
        Panel("Calls", "reqps", ((rate("tandem_requests_total", "job, method"), "{{job}} {{method}}"),)),
        Panel("HTTP", "reqps", ((rate("tandem_http_requests_total", "route"), "{{route}}"),)),
        Panel(
            "Audio",
            "none",
            (
                ("sum(rate(tandem_gateway_audio_seconds_total[1m]))", "recordings, s/s"),
                ("sum(rate(tandem_encoder_audio_seconds_total[1m]))", "encoded, s/s"),
            ),
        ),
    ),
    "Refusals and errors": (
        Panel(
            "Refused",
            "reqps",
            ((rate("tandem_requests_total", "job", '{code="RESOURCE_EXHAUSTED"}'), "{{job}}"),),
        ),
        Panel(
            "Errors",
            "reqps",
            ((rate("tandem_requests_total", "job, code", '{code!~"OK|CANCELLED"}'), "{{job}} {{code}}"),),
        ),
        Panel(
            "Encoders",
            "none",
            (
                ("sum(tandem_gateway_encoder_up) by (instance)", "up, seen by {{instance}}"),
                (rate("tandem_gateway_encoder_failovers_total", "address"), "failovers/s {{address}}"),
            ),
        ),
    ),
    "Latency": (
        Panel(
            "Calls, 95 %", "s", ((quantile("tandem_request_seconds", "job, method"), "{{job}} {{method}}"),)
        ),
        Panel(
            "Recordings by stage, 95 %",
            "s",
            ((quantile("tandem_gateway_stage_seconds", "stage"), "{{stage}}"),),
        ),
        Panel(
            "Tiers by stage, 95 %",
            "s",
            (
                (quantile("tandem_encoder_stage_seconds", "stage"), "encoder {{stage}}"),
                (quantile("tandem_decoder_stage_seconds", "stage"), "decoder {{stage}}"),
            ),
        ),
    ),
    "Live audio": (
        Panel(
            "Sessions",
            "none",
            (
                ("sum(tandem_gateway_open_sessions)", "open"),
                ("sum(tandem_gateway_speaking_sessions)", "speaking"),
                ("sum(tandem_http_open_websockets)", "WebSockets on the HTTP port"),
            ),
        ),
        Panel(
            "From the end of speech to its text",
            "s",
            (("max(tandem_gateway_final_seconds)", "slowest gateway"),),
        ),
        Panel(
            "Streaming lag",
            "s",
            (("max by (instance) (tandem_gateway_session_backlog_seconds)", "{{instance}}"),),
        ),
    ),
    "Encoder": (
        Panel(
            "Queue",
            "s",
            (
                ("tandem_encoder_queued_audio_seconds", "waiting {{instance}}"),
                ("tandem_encoder_running_audio_seconds", "running {{instance}}"),
                ("tandem_gateway_encoder_outstanding_seconds", "{{instance}} to {{address}}"),
            ),
        ),
        Panel("Speed", "none", (("tandem_encoder_audio_seconds_per_second", "{{instance}}"),)),
        Panel(
            "Segments in a batch",
            "none",
            (
                (
                    "rate(tandem_encoder_batch_items_sum[5m]) / rate(tandem_encoder_batch_items_count[5m])",
                    "{{instance}}",
                ),
            ),
        ),
    ),
    "Decoder": (
        Panel(
            "Requests",
            "none",
            (
                ("tandem_decoder_running_requests", "running {{instance}}"),
                ("tandem_decoder_waiting_requests", "waiting {{instance}}"),
            ),
        ),
        Panel("Tokens", "none", (("tandem_decoder_tokens_per_second", "{{instance}}, tokens/s"),)),
        Panel("Key-value cache", "percentunit", (("tandem_decoder_kv_cache_usage", "{{instance}}"),)),
    ),
    "Work saved": (
        Panel(
            "Encodings by where they came from",
            "reqps",
            ((rate("tandem_encoder_cache_requests_total", "outcome"), "{{outcome}}"),),
        ),
        Panel(
            "Kept encodings",
            "bytes",
            (
                ("tandem_encoder_cache_bytes", "{{instance}}"),
                (rate("tandem_encoder_cache_evictions_total", "instance"), "given up/s {{instance}}"),
            ),
        ),
        Panel(
            "Draft tokens that the model agreed with",
            "percentunit",
            (
                (
                    "rate(tandem_decoder_accepted_draft_tokens_total[5m])"
                    " / rate(tandem_decoder_draft_tokens_total[5m])",
                    "{{instance}}",
                ),
            ),
        ),
    ),
    "GPU (NVIDIA DCGM exporter)": (
        Panel("Use", "percent", (("DCGM_FI_DEV_GPU_UTIL", "{{Hostname}} {{gpu}}"),)),
        Panel("Memory", "decmbytes", (("DCGM_FI_DEV_FB_USED", "{{Hostname}} {{gpu}}"),)),
        Panel("Power", "watt", (("DCGM_FI_DEV_POWER_USAGE", "{{Hostname}} {{gpu}}"),)),
    ),
}


def panel(item: Panel, number: int, x: int, y: int) -> dict[str, Any]:
    targets = [
        {"refId": chr(ord("A") + index), "expr": query, "legendFormat": legend, "datasource": SOURCE}
        for index, (query, legend) in enumerate(item.queries)
    ]
    return {
        "id": number,
        "type": "timeseries",
        "title": item.title,
        "datasource": SOURCE,
        "gridPos": {"x": x, "y": y, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": item.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": targets,
    }


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, items in ROWS.items():
        position = {"x": 0, "y": y, "w": 24, "h": 1}
        panels.append(
            {"id": len(panels) + 1, "type": "row", "title": title, "gridPos": position, "panels": []}
        )
        for column, item in enumerate(items):
            panels.append(panel(item, len(panels) + 1, column * WIDTH, y + 1))
        y += HEIGHT + 1
    source = {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    return {
        "uid": "tandem",
        "title": "Tandem",
        "tags": ["tandem"],
        "schemaVersion": 39,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [source]},
        "panels": panels,
    }


def text() -> str:
    return json.dumps(dashboard(), indent=2) + "\n"


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
