"""One pass of a folder of recordings through running services, watched: rows of the benchmarks' tables."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks import metrics, processor, profiling
from benchmarks.gpu_use import gpu_names
from benchmarks.report import table
from benchmarks.watch import Watched, watching

STAGES = ("audio_decode", "vad", "encode_queue", "encode", "decode", "align", "speakers")


@dataclass(frozen=True, slots=True)
class Load:
    """How a folder is sent: by the SDK from one process, or by gRPC clients spread over processes.

    segment, texts: see benchmarks.load_client.Load; of gRPC alone.
    """

    way: str = "grpc"
    in_flight: int = 64
    processes: int = 2
    speakers: bool = False
    segment: float = 0.0
    texts: str = ""

    def command(self, servers: Sequence[str], folder: Path) -> list[str]:
        """Of benchmarks.load_client."""
        command = [sys.executable, "-m", "benchmarks.load_client", ",".join(servers), str(folder)]
        command += ["--in-flight", str(self.in_flight), "--processes", str(self.processes)]
        command += ["--segment", str(self.segment), "--texts", self.texts]
        command += ["--sdk"] if self.way == "sdk" else []
        return [*command, *(["--speakers"] if self.speakers else [])]


@dataclass(slots=True)
class Row:
    """One measured pass. Seconds and MiB; `stages` are sums over segments that run side by side.

    processor and busiest: by role, of all threads and of the busiest one. See benchmarks.watch.Seen.
    """

    name: str
    audio: float
    wall: float
    failed: int = 0
    processor: dict[str, float] = field(default_factory=dict)
    busiest: dict[str, float] = field(default_factory=dict)
    gpu_mib: dict[str, int] = field(default_factory=dict)
    gpu_percent: dict[str, float] = field(default_factory=dict)
    stages: dict[str, float] = field(default_factory=dict)
    counters: dict[str, dict[str, float]] = field(default_factory=dict)
    peaks: dict[str, float] = field(default_factory=dict)
    means: dict[str, float] = field(default_factory=dict)
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def rtfx(self) -> float:
        return self.audio / self.wall


def one_pass(name: str, load: Load, servers: Sequence[str], folder: Path, tiers: Sequence[Watched]) -> Row:
    """Send the folder once. Raises RuntimeError when nothing came back at all."""
    with watching(tiers) as seen:
        found = subprocess.run(load.command(servers, folder), stdout=subprocess.PIPE, text=True)
    if not found.stdout.strip():
        raise RuntimeError(f"{name}: the client ended with status {found.returncode} and said nothing")
    detail = json.loads(found.stdout.splitlines()[-1])
    row = Row(name, detail["audio"], detail["wall"], detail["failed"], detail=detail | asdict(load))
    row.processor = seen.processor | {"client": detail.pop("client_processor")}
    row.busiest, row.gpu_mib, row.gpu_percent = seen.busiest, seen.gpu_mib, seen.gpu_percent
    row.counters, row.peaks, row.means = seen.counters, seen.peaks, seen.means
    of_gateway = row.counters.get("gateway", {})
    row.stages = {
        stage: round(spent, 2)
        for stage in STAGES
        if (spent := of_gateway.get(f"tandem_gateway_stage_seconds_sum.{stage}"))
    }
    return row


def profiled_pass(
    load: Load,
    servers: Sequence[str],
    folder: Path,
    tiers: Sequence[Watched],
    *,
    gil: bool,
    seconds: int,
    keep: Path,
) -> list[str]:
    """A report of where tiers and client spend their time in the middle of a pass, which is not measured."""
    client = subprocess.Popen(load.command(servers, folder), stdout=subprocess.DEVNULL)
    try:
        _wait_for_calls(tiers, client)
        watched = [*tiers, Watched("client", (client.pid,))]
        roles = {
            role: processes[0]
            for tier in watched
            for role, processes in tier.by_role().items()
            if processor.kind(processes[0]) != "tracker" and role != "client"
        }
        found = profiling.record(roles, seconds, gil=gil, keep=keep)
    finally:
        client.wait()
    return [line for name, profile in found.items() for line in profiling.lines(name, profile, seconds)]


def _wait_for_calls(tiers: Sequence[Watched], client: subprocess.Popen[bytes]) -> None:
    """Until the decoder is asked something. Raises RuntimeError when the client ends first."""
    decoder = next(tier for tier in tiers if tier.name == "decoder")
    while not metrics.gauges(decoder.ports).get("tandem_decoder_running_requests"):
        if client.poll() is not None:
            raise RuntimeError("the client ended before anything was profiled")
        time.sleep(0.05)


def made() -> dict[str, object]:
    """How and where this process measures: command, cores, GPUs, versions."""
    words = [Path(sys.argv[0]).stem, *sys.argv[1:]]
    versions = {}
    for name in ("torch", "transformers", "vllm"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        "command": " ".join(words),
        "cores": os.cpu_count(),
        "gpus": gpu_names(),
        "python": platform.python_version(),
        "versions": versions,
    }


class Results:
    """Rows as they come: printed at once, and written to `path` after each, whatever happens later."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._made = made() if path is not None else {}
        self.rows: list[Row] = []
        self.failures: dict[str, str] = {}

    def add(self, row: Row) -> None:
        self.rows.append(row)
        print("\n".join(describe(row)), flush=True)
        self._write()

    def attempt(self, name: str, run: Callable[[], Row | Sequence[Row] | None]) -> None:
        """Run, add what it gives, or keep the traceback: one failure must not cost the rest its turn."""
        try:
            found = run()
        except Exception:
            self.failures[name] = traceback.format_exc()
            print(f"{name} failed\n{self.failures[name]}", flush=True)
            self._write()
            return
        for row in [found] if isinstance(found, Row) else found or ():
            self.add(row)

    def _write(self) -> None:
        if self._path is not None:
            rows = [asdict(row) | {"rtfx": row.rtfx} for row in self.rows]
            record = {"made": self._made, "rows": rows, "failures": self.failures}
            self._path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    def table(self) -> str:
        """One line for each row."""
        return table([_cells(row) for row in self.rows])


def _cells(row: Row) -> dict[str, str]:
    cells = {"pass": row.name, "audio s": f"{row.audio:.0f}", "wall s": f"{row.wall:.2f}"}
    cells |= {"RTFx": f"{row.rtfx:.0f}", "failed": str(row.failed)}
    cells |= {f"CPU {role}": f"{spent:.1f}" for role, spent in row.processor.items()}
    cells |= {f"GiB {role}": f"{mib / 1024:.1f}" for role, mib in row.gpu_mib.items()}
    return cells | {stage: f"{spent:.1f}" for stage, spent in row.stages.items()}


_READ = {
    "decoder running": "decoder tandem_decoder_running_requests",
    "decoder waiting": "decoder tandem_decoder_waiting_requests",
    "encoder queue s": "encoder tandem_encoder_queued_audio_seconds",
    "encoder queue": "encoder tandem_encoder_waiting_requests",
    "encoder running s": "encoder tandem_encoder_running_audio_seconds",
}


def describe(row: Row) -> list[str]:
    """A few lines for a person who looks for what limits it."""
    share = {
        role: f"{used:.1f} ({row.busiest[role]:.1f})"
        for role, used in row.processor.items()
        if role in row.busiest
    }
    share |= {role: f"{used:.1f}" for role, used in row.processor.items() if role not in row.busiest}
    gauges = [
        f"{title} {row.peaks[name]:.0f} (mean {row.means[name]:.0f})"
        for title, name in _READ.items()
        if name in row.peaks
    ]
    waits = row.counters.get("gateway", {}).get("tandem_gateway_admission_seconds_sum", 0.0)
    lines = [
        f"{row.name}: {row.audio:.0f} s of audio in {row.wall:.2f} s, RTFx {row.rtfx:.0f}"
        + (f", {row.failed} FAILED: {row.detail.get('errors')}" if row.failed else ""),
        "  CPU s (busiest thread): " + ", ".join(f"{role} {text}" for role, text in share.items()),
        "  sums s: "
        + ", ".join(f"{stage} {spent:.1f}" for stage, spent in row.stages.items())
        + f", admission {waits:.1f}",
        "  peaks: " + ", ".join(gauges),
    ]
    encoder = row.counters.get("encoder", {})
    if batches := encoder.get("tandem_encoder_batch_items_count"):
        spent = {
            name.rpartition(".")[2]: value
            for name, value in encoder.items()
            if name.startswith("tandem_encoder_stage_seconds_sum")
        }
        lines.append(
            f"  encoder: {batches:.0f} batches of {encoder['tandem_encoder_batch_items_sum'] / batches:.1f}, "
            + ", ".join(f"{name} {value:.2f}" for name, value in spent.items())
        )
    decoder = row.counters.get("decoder", {})
    lines.append("  decoder: " + ", ".join(_decoder_sums(decoder)) + f"; GPU {_percent(row)}")
    return lines


def _decoder_sums(counters: dict[str, float]) -> list[str]:
    requests = counters.get("tandem_decoder_stage_seconds_count.generate", 0.0)
    found = [f"{requests:.0f} requests", f"{counters.get('tandem_decoder_tokens_total', 0):.0f} tokens"]
    for name, value in counters.items():
        if name.startswith("tandem_decoder_stage_seconds_sum") and requests:
            found.append(f"{name.rpartition('.')[2]} {1000 * value / requests:.0f} ms")
    return found


def _percent(row: Row) -> str:
    return ", ".join(f"{percent:.0f} %" for percent in row.gpu_percent.values()) or "none"
