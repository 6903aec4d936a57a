"""Live sessions on a GPU: how many, how late, and what they cost, from one stream to more than it can take.

A study of benchmarks.studies: it runs on tiers that are there.
Several gateways share the tiers, and paced clients of several processes share the gateways; every session
sends audio that no cache has seen. A session's finals are wrong when they do not end where the detector
alone, on that session's own audio, ends speech. Answers have a forced length,
as random weights need it, unless --tokens-per-embedding is 0.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from benchmarks import side_by_side, streaming
from benchmarks.passes import Results, Row
from benchmarks.report import table
from benchmarks.stack import Front, front
from benchmarks.watch import Watched, watching
from benchmarks.workload import ROOT, as_wav
from tandem.streaming_client import StreamOptions

SESSIONS, SMALL = (64, 256, 512, 1024), (2, 4)
RECORDING = ROOT / "examples" / "meeting.flac"
FIGURES = {
    "first partial": "first_partial_ms",
    "final after endpoint": "final_after_endpoint_ms",
    "final after speech": "final_after_speech_ms",
    "lag": "lag_ms",
}


@dataclass(slots=True)
class Levels:
    """Loads of growing size on the same servers; the first one is a single stream."""

    servers: tuple[str, ...]
    tiers: list[Watched]
    recording: Path
    seconds: float
    processes: int
    compared: bool = False
    """Whether words are compared with those of one stream: not where weights are random."""
    alone: streaming.Measured = field(default_factory=streaming.Measured)

    def load(self, streams: int) -> streaming.Load:
        options = StreamOptions(reconnect=0.0)
        return streaming.Load(
            self.servers,
            str(self.recording),
            options,
            streams,
            self.processes,
            self.seconds,
            distinct=True,
            shifted=True,
        )

    def run(self, streams: int) -> Row:
        """One level. `wall` is the time of a session."""
        with watching(self.tiers) as seen:
            got = streaming.measure(self.load(streams))
        self.alone = self.alone if self.alone.texts else got
        row = Row(f"{streams} sessions", streams * self.seconds, self.seconds, got.failed)
        row.processor = seen.processor | {"client": round(got.processor, 2)}
        row.busiest, row.gpu_mib, row.gpu_percent = seen.busiest, seen.gpu_mib, seen.gpu_percent
        row.counters, row.peaks, row.means = seen.counters, seen.peaks, seen.means
        row.detail = streaming.latencies(got) | {
            "streams": streams,
            "partials_per_stream": round(len(got.lag) / max(1, len(got.texts)), 1),
            "finals": sum(got.finals),
            "sessions_with_wrong_finals": got.wrong,
        }
        if self.compared:
            row.detail["wer_against_one_stream"] = streaming.difference(self.alone.texts[0], got.texts)
        return row


def is_live(row: Row) -> bool:
    """Whether it is a row of this study."""
    return "first_partial_ms" in row.detail


def cells(row: Row) -> dict[str, str]:
    """One line of the table: milliseconds as p50 / p95, cores in use, GPU."""
    line = {"sessions": str(row.detail["streams"]), "failed": str(row.failed)}
    if (wrong := row.detail.get("sessions_with_wrong_finals")) is not None:
        line["wrong finals"] = str(wrong)
    for title, name in FIGURES.items():
        found = row.detail[name]
        line[title] = f"{found['p50']} / {found['p95']}"
    line |= {f"CPU {role}": f"{spent:.0f}" for role, spent in row.processor.items()}
    return line | {name: f"{percent:.0f} %" for name, percent in row.gpu_percent.items()}


def study(setup: side_by_side.Setup, there: Front, results: Results) -> None:
    """A row for a single stream, then one for each level."""
    cores, smoke = os.cpu_count() or 2, setup.work.files < 100
    services, seconds = replace(setup.services, gateways=max(2, cores // 2)), 8.0 if smoke else 20.0
    with front(services, there, ["--audio-workers", "1"]) as at:
        recording = as_wav(RECORDING, setup.root / "live.wav")
        compared = not setup.services.tokens_per_embedding
        levels = Levels(at.servers, at.watched, recording, seconds, max(2, cores // 3), compared)
        for number in (1, *(SMALL if smoke else SESSIONS)):
            results.attempt(f"{number} sessions", partial(levels.run, number))
            at.check_alive()
    print(table([cells(row) for row in results.rows if is_live(row)]))
