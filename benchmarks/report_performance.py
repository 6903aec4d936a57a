"""Writes the measured parts of docs/performance.md, and its plots, from the results in docs/performance.

    python -m benchmarks.report_performance [--check]

Results are the files that benchmarks/gpu/run.sh leaves, under their names there; what is in them says where
it belongs. What lies between <!-- NAME --> and <!-- end --> of the page is made anew; a part without results
stays empty. Numbers are copied, never typed.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.hop import SIDES
from benchmarks.live_load import cells as live_cells
from benchmarks.live_load import is_live
from benchmarks.metrics import decoder_seconds
from benchmarks.passes import Row
from benchmarks.plot import Series, line_plot
from benchmarks.report import table

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "performance.md"
FOLDER = PAGE.with_suffix("")
_PART = re.compile(r"(<!-- ([a-z-]+) -->\n).*?(<!-- end -->)", re.S)
_WHOLE = re.compile(r"(sdk|grpc)[^#]*#\d|\w+, FunASR|FunASR|transformers engine")
_PEERS = ("side_peer", "side_slow")
_CURVES = {
    "segment": ("segment.svg", "RTFx against segment length", "seconds of a segment"),
    "in flight": ("in-flight.svg", "RTFx against recordings in flight", "recordings at a time"),
    "clients": ("clients.svg", "RTFx against client processes", "client processes, 128 recordings in flight"),
}


@dataclass(frozen=True, slots=True)
class Measured:
    """One file of results: how they were made, and their rows."""

    name: str
    made: Mapping[str, Any]
    rows: Sequence[Row]

    @classmethod
    def read(cls, path: Path) -> Measured:
        """Keys that are no field of a row, RTFx for one, follow from the others."""
        record = json.loads(path.read_text(encoding="utf-8"))
        known = {field.name for field in fields(Row)}
        rows = [Row(**{key: row[key] for key in known & set(row)}) for row in record["rows"]]
        return cls(path.stem, record.get("made", {}), rows)

    def origin(self) -> str:
        """Where the numbers come from, for a line below a table."""
        gpus = self.made.get("gpus") or []
        place = f"{len(gpus)} x {gpus[0]}" if gpus else "no GPU"
        place += f", {self.made.get('cores', 'unknown')} cores"
        versions = ", ".join(f"{name} {version}" for name, version in self.made.get("versions", {}).items())
        return f"`{self.name}.json`: {place}; {versions}."


Files = Sequence[Measured]


def side_by_side(files: Files) -> str:
    """Each engine: RTFx, seconds by stage, memory and processor time."""
    wanted = [file for file in files if any(is_whole(row) for row in file.rows)]
    wanted.sort(key=lambda file: file.name in _PEERS)
    rows = [_side_cells(row) for file in wanted for row in file.rows if is_whole(row)]
    return _with_origin(table(rows), wanted) if rows else ""


def is_whole(row: Row) -> bool:
    """Whether it is a row of benchmarks.side_by_side, not its warm-up."""
    return bool(_WHOLE.match(row.name))


def _side_cells(row: Row) -> dict[str, str]:
    line = {"": row.name, "audio s": f"{row.audio:,.0f}", "wall s": f"{row.wall:.2f}"}
    line |= {"RTFx": f"{row.rtfx:,.0f}", "failed": str(row.failed)}
    line |= {stage: f"{spent:,.1f}" for stage, spent in row.stages.items()}
    line["CPU s"] = f"{sum(row.processor.values()):,.0f}"
    line["GPU GiB"] = f"{sum(row.gpu_mib.values()) / 1024:.1f}"
    return line


def sweep(files: Files) -> str:
    """Settings of gateways, clients and recordings in flight: a table for each file of them."""
    wanted = [file for file in files if file.name.startswith("sweep")]
    return "\n\n".join(_with_origin(table(rows), [file]) for file in wanted if (rows := _settings(file)))


def _settings(file: Measured) -> list[dict[str, str]]:
    return [
        {
            "": row.name,
            "RTFx": f"{row.rtfx:,.0f}",
            "failed": str(row.failed),
            **{f"CPU {role}": f"{spent:.1f}" for role, spent in row.processor.items() if spent >= 0.05},
            **{name: f"{percent:.0f} %" for name, percent in row.gpu_percent.items()},
        }
        for row in file.rows
        if row.name != "warm-up"
    ]


def hop(files: Files) -> str:
    """The encoder's wait for the decoder, less what the decoder was busy: what lies between the tiers."""
    found = [
        (row, cost)
        for file in files
        for row in file.rows
        if (is_whole(row) or row.detail.get("curve") == "in flight")
        and (cost := hop_seconds(row)) is not None
    ]
    lines = []
    for row, cost in found:
        encoder = row.counters["encoder"]
        requests = encoder["tandem_request_seconds_count.Transcribe"]
        whole = encoder["tandem_request_seconds_sum.Transcribe"]
        lines.append(
            {
                "": row.name,
                "requests": f"{requests:,.0f}",
                "a request ms": f"{1000 * whole / requests:,.0f}",
                "hop ms": f"{1000 * cost / requests:.1f}",
                "share": f"{cost / whole:.1%}",
            }
        )
    return table(lines) if lines else ""


def hop_seconds(row: Row) -> float | None:
    """Summed over a pass; None where the tiers' metrics are not in the row, or sessions were live."""
    gateway, decoder = row.counters.get("gateway", {}), row.counters.get("decoder", {})
    waited = gateway.get("tandem_gateway_stage_seconds_sum.decode")
    if waited is None or not row.counters.get("encoder") or row.name == "warm-up":
        return None
    return waited - decoder_seconds(decoder)


def one_process(files: Files) -> str:
    """Both tiers in one process beside the two, by load, whole rounds averaged."""
    tables = []
    for file in files:
        rows = [row for row in file.rows if "tiers" in row.detail]
        lines = [_beside(at, rows) for at in sorted({row.detail["at"] for row in rows})]
        if any(lines):
            tables.append(_with_origin(table([line for line in lines if line]), [file]))
    return "\n\n".join(tables)


def _beside(at: int, rows: Sequence[Row]) -> dict[str, str]:
    """One level of load; empty where a side is missing."""
    sides = [[row for row in rows if (row.detail["tiers"], row.detail["at"]) == (name, at)] for name in SIDES]
    rounds = min(map(len, sides))
    if not rounds:
        return {}
    sides = [side[:rounds] for side in sides]
    calls = [mean(_call_ms(row) for row in side) for side in sides]
    hop_ms = mean(1000 * (hop_seconds(row) or 0.0) / _calls(row) for row in sides[0])
    medians = [mean(row.detail["latency_p50"] for row in side) for side in sides]
    speeds = [mean(row.rtfx for row in side) for side in sides]
    call, recording = (hop_ms / whole for whole in (calls[0], 1000 * medians[0]))
    return {
        "recordings at a time": f"{at}",
        "rounds": f"{rounds}",
        "hop ms": f"{hop_ms:.1f}",
        "of a segment's call": f"{call:.1%}",
        "of a recording": f"{recording:.1%}",
        "a segment's call ms: two tiers": f"{calls[0]:,.1f}",
        "one process": f"{calls[1]:,.1f}",
        "a recording p50 s: two tiers": f"{medians[0]:.3f}",
        "one process ": f"{medians[1]:.3f}",
        "RTFx: two tiers": f"{speeds[0]:,.0f}",
        "one process  ": f"{speeds[1]:,.0f}",
    }


def _call_ms(row: Row) -> float:
    """Of the encoder's Transcribe."""
    return 1000 * row.counters["encoder"]["tandem_request_seconds_sum.Transcribe"] / _calls(row)


def _calls(row: Row) -> float:
    return float(row.counters["encoder"]["tandem_request_seconds_count.Transcribe"])


def growth(files: Files) -> str:
    """RTFx along each curve."""
    parts = []
    for curve, (plot, title, label) in _CURVES.items():
        rows = _on_curve(files, curve)
        if rows:
            lines = [
                {label: f"{row.detail['at']:g}", "RTFx": f"{row.rtfx:,.0f}", "failed": str(row.failed)}
                | {"p50 s": _seconds(row, "latency_p50"), "p95 s": _seconds(row, "latency_p95")}
                for row in rows
            ]
            parts += [f"![{title}](performance/{plot})", table(lines)]
    return "\n\n".join(parts)


def memory(files: Files) -> str:
    """What the tiers hold against the audio that waits for the encoder."""
    rows = _on_curve(files, "in flight")
    lines = [
        {"recordings": f"{row.detail['at']:g}", "queue s": f"{queue(row):,.0f}"}
        | {f"{role} MiB": f"{mib:,.0f}" for role, mib in host_mib(row).items()}
        | {f"GPU {role} MiB": f"{mib:,.0f}" for role, mib in row.gpu_mib.items()}
        for row in rows
    ]
    return f"![Memory against queue](performance/memory.svg)\n\n{table(lines)}" if lines else ""


def live(files: Files) -> str:
    """Live sessions: milliseconds as p50 / p95, seconds of processor time of a level."""
    found = [(file, rows) for file in files if (rows := _live_rows([file]))]
    tables = [_with_origin(table([live_cells(row) for row in rows]), [file]) for file, rows in found]
    return "\n\n".join(["![Live latency](performance/live.svg)", *tables]) if tables else ""


def tensor_parallel(files: Files) -> str:
    """One decoder over two GPUs, and on one."""
    wanted = [file for file in files if file.name == "tp"]
    lines = [
        {"": row.name, "RTFx": f"{row.rtfx:,.0f}", "failed": str(row.failed)}
        | {"p50 s": _seconds(row, "latency_p50"), "p95 s": _seconds(row, "latency_p95")}
        for file in wanted
        for row in file.rows
        if row.audio and "warm-up" not in row.name
    ]
    equal = [
        f"{row.detail['equal']} of {row.detail['segments']} texts are equal."
        for file in wanted
        for row in file.rows
        if "equal" in row.detail
    ]
    return _with_origin("\n\n".join([table(lines), *equal]), wanted) if lines else ""


def plots(files: Files) -> dict[str, str]:
    """SVG by file name."""
    found = {}
    for curve, (name, title, label) in _CURVES.items():
        if rows := _on_curve(files, curve):
            found[name] = line_plot(
                title, label, "RTFx", {"": [(row.detail["at"], row.rtfx) for row in rows]}
            )
    if rows := _on_curve(files, "in flight"):
        roles = dict.fromkeys(role for row in rows for role in host_mib(row))
        held: Series = {role: [(queue(row), host_mib(row).get(role, 0.0)) for row in rows] for role in roles}
        title = "Memory against queue"
        found["memory.svg"] = line_plot(title, "seconds of audio waiting, at most", "MiB, host", held)
    if rows := _live_rows([file for file in files if _live_rows([file])][-1:]):
        lines: Series = {
            f"{what}, {rank}": [(row.detail["streams"], row.detail[key][rank]) for row in rows]
            for what, key in (("first partial", "first_partial_ms"), ("final", "final_after_endpoint_ms"))
            for rank in ("p50", "p95")
        }
        found["live.svg"] = line_plot("Live latency", "sessions", "milliseconds", lines)
    return found


def queue(row: Row) -> float:
    """Most seconds of audio that waited for the encoder."""
    return row.peaks.get("encoder tandem_encoder_queued_audio_seconds", 0.0)


def host_mib(row: Row) -> dict[str, float]:
    """Most memory that each role held; helper processes left out."""
    ending = " host_mib"
    return {
        name.removesuffix(ending): value
        for name, value in row.peaks.items()
        if name.endswith(ending) and "tracker" not in name
    }


def _on_curve(files: Files, curve: str) -> list[Row]:
    rows = [row for file in files for row in file.rows if row.detail.get("curve") == curve]
    return sorted(rows, key=lambda row: float(row.detail["at"]))


def _live_rows(files: Files) -> list[Row]:
    return [row for file in files for row in file.rows if is_live(row)]


def _seconds(row: Row, name: str) -> str:
    value = row.detail.get(name)
    return "" if value is None else f"{value:.2f}"


def _with_origin(text: str, files: Iterable[Measured]) -> str:
    return "\n\n".join([text, *(file.origin() for file in files)])


PARTS: dict[str, Callable[[Files], str]] = {
    "side-by-side": side_by_side,
    "sweep": sweep,
    "hop": hop,
    "one-process": one_process,
    "growth": growth,
    "memory": memory,
    "live": live,
    "tensor-parallel": tensor_parallel,
}


def written(page: str, files: Files) -> str:
    """The page with its measured parts made anew. Raises KeyError for a part that nobody knows."""

    def part(found: re.Match[str]) -> str:
        text = PARTS[found[2]](files)
        return f"{found[1]}{text}\n{found[3]}" if text else f"{found[1]}{found[3]}"

    return _PART.sub(part, page)


def outputs() -> dict[Path, str]:
    """Every generated file and what it says."""
    files = [Measured.read(path) for path in sorted(FOLDER.glob("*.json"))]
    made = {FOLDER / name: text for name, text in plots(files).items()}
    return made | {PAGE: written(PAGE.read_text(encoding="utf-8"), files)}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing, fail when stale")
    options = parser.parse_args()
    stale = []
    for path, text in outputs().items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(path.name)
            if not options.check:
                path.write_text(text, encoding="utf-8")
    print(f"{'stale' if options.check else 'written'}: {', '.join(stale) or 'nothing'}")
    return 1 if stale and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
