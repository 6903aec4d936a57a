"""The bulk job on a local Ray cluster against real services: results, failures, what a later run does."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
import ray

from tandem import Client, RecognizeOptions
from tandem.bulk.job import BulkJob, run_bulk
from tandem.bulk.parts import Parts
from tandem.cli import main
from tandem.errors import InvalidRequest
from tandem.inputs import recordings
from tests.support.http import HttpStack
from tests.support.services import NANO

WAVS = ("english_9s", "mandarin_206ms", "mandarin_6s")
OPTIONS = RecognizeOptions(max_new_tokens=3)
FLAGS = ["--max-new-tokens", "3", "--part-size", "2", "--actors", "1"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # Of the tiers, which other tests import; Ray has a gRPC of its own, and no job has both in a process.
        patch.delenv("GRPC_EXPERIMENTS", raising=False)
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=40)
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def expected(http_services: HttpStack) -> dict[str, str]:
    """What each recording says."""
    with Client(http_services.grpc) as client:
        return {name: client.recognize(NANO / f"{name}.wav", OPTIONS).text for name in WAVS}


def manifest(folder: Path) -> Path:
    """Three recordings, one that is not there, one that is none."""
    for name in WAVS:
        shutil.copy(NANO / f"{name}.wav", folder)
    (folder / "noise.wav").write_bytes(b"this is no recording" * 50)
    names = [*WAVS, "missing", "noise"]
    file = folder / "manifest.jsonl"
    file.write_text("".join(json.dumps({"source": f"{name}.wav"}) + "\n" for name in names), "utf-8")
    return file


def parts(folder: Path, kind: str) -> list[dict[str, Any]]:
    """Records of all files of a kind, `part` or `failed`, by key."""
    texts = [path.read_text(encoding="utf-8") for path in folder.glob(f"{kind}-*.jsonl")]
    return sorted((json.loads(line) for text in texts for line in text.splitlines()), key=lambda r: r["key"])


def test_a_run_does_what_it_can_and_the_next_one_the_rest(
    http_services: HttpStack,
    cluster: None,
    expected: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "out"
    command = ["bulk", str(manifest(tmp_path)), "-o", str(output), "--server", http_services.grpc, *FLAGS]
    assert main(command) == 1
    assert {record["key"]: record["text"] for record in parts(output, "part")} == expected
    assert [(r["key"], r["reason"]) for r in parts(output, "failed")] == [
        ("missing", "UNREADABLE"),
        ("noise", "INVALID_AUDIO"),
    ]
    said = capsys.readouterr().err
    assert "3 done" in said and "2 failed, 0 were done before" in said
    assert "missing.wav: UNREADABLE" in said

    before = {path: path.stat().st_mtime_ns for path in output.glob("part-*")}
    shutil.copy(tmp_path / "mandarin_6s.wav", tmp_path / "missing.wav")
    assert main(command) == 1
    assert "1 done" in (said := capsys.readouterr().err) and "1 failed, 3 were done before" in said
    assert [record["key"] for record in parts(output, "failed")] == ["noise"]
    assert len(parts(output, "part")) == 4
    assert {path: path.stat().st_mtime_ns for path in before} == before

    (tmp_path / "noise.wav").unlink()
    shutil.copy(tmp_path / "mandarin_206ms.wav", tmp_path / "noise.wav")
    assert main([*command, "--language", "zh"]) == 0  # other options are other work
    assert len(parts(output, "part")) == 9
    assert parts(output, "failed") == []


def test_parquet_in_and_out(
    http_services: HttpStack, cluster: None, expected: dict[str, str], tmp_path: Path
) -> None:
    import pyarrow as pa

    listed = pa.table({"key": list(WAVS), "source": [str(NANO / f"{name}.wav") for name in WAVS]})
    pq.write_table(listed, tmp_path / "list.parquet")
    job = BulkJob(http_services.grpc, Parts(tmp_path / "out", "parquet"), OPTIONS)
    report = run_bulk(recordings(tmp_path / "list.parquet"), job)
    assert (report.done, report.failed) == (3, 0)
    assert report.audio == pytest.approx(15.2, abs=0.2)
    table = pq.read_table(tmp_path / "out").to_pylist()
    assert {row["key"]: row["text"] for row in table} == expected
    words = [word for row in table for segment in row["segments"] for word in segment["words"]]
    assert words and all(word["end"] > word["start"] >= 0 for word in words)
    assert run_bulk(recordings(tmp_path / "list.parquet"), job).skipped == 3


def test_a_worker_that_dies_loses_nothing_and_doubles_nothing(
    http_services: HttpStack, cluster: None, expected: dict[str, str], tmp_path: Path
) -> None:
    scp = tmp_path / "wav.scp"
    scp.write_text("".join(f"k{i:02} {NANO}/{WAVS[i % 3]}.wav\n" for i in range(30)), encoding="utf-8")
    job = BulkJob(http_services.grpc, Parts(tmp_path / "out"), OPTIONS, actors=2, in_flight=1, part_size=3)
    killed: list[int] = []

    def kill_when_some_parts_are_there() -> None:
        while len(list((tmp_path / "out").glob("part-*"))) < 3:
            time.sleep(0.02)
        for process in psutil.Process().children(recursive=True):
            if "MapWorker" in " ".join(process.cmdline()):
                os.kill(process.pid, signal.SIGKILL)
                killed.append(process.pid)

    killer = threading.Thread(target=kill_when_some_parts_are_there)
    killer.start()
    report = run_bulk(recordings(scp), job)
    killer.join()
    assert killed
    assert report.failed == 0
    records = parts(tmp_path / "out", "part")
    assert [record["key"] for record in records] == [f"k{i:02}" for i in range(30)]
    assert [record["text"] for record in records] == [expected[WAVS[i % 3]] for i in range(30)]


def test_what_is_no_manifest_is_refused(tmp_path: Path) -> None:
    bad = tmp_path / "list.parquet"
    bad.write_bytes(b"none")
    with pytest.raises(InvalidRequest, match="no Parquet file"):
        list(recordings(bad))
    with pytest.raises(InvalidRequest, match="takes files"):
        run_bulk(recordings([b"samples"]), BulkJob("nowhere:1", Parts(tmp_path / "out")))
    with pytest.raises(InvalidRequest, match="is not one of"):
        Parts(tmp_path, "csv")
