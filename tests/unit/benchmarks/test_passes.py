"""What benchmarks keep and report: rows outlive a failure, and stacks are counted by frame."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import processor
from benchmarks.passes import Results, Row
from benchmarks.profiling import Profile


def test_rows_are_written_whatever_fails_later(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = Results(tmp_path / "rows.json")

    def fails() -> Row:
        raise RuntimeError("the encoder died")

    results.attempt("first", lambda: Row("first", audio=100.0, wall=2.0))
    results.attempt("second", fails)
    results.attempt("third", lambda: Row("third", audio=90.0, wall=3.0, failed=1))

    written = json.loads((tmp_path / "rows.json").read_text())
    assert [(row["name"], row["rtfx"]) for row in written["rows"]] == [("first", 50.0), ("third", 30.0)]
    assert "the encoder died" in written["failures"]["second"]
    assert "1 FAILED" in capsys.readouterr().out


def test_profile_counts_frames_once_a_stack(tmp_path: Path) -> None:
    raw = tmp_path / "p.raw"
    raw.write_text("main (a.py:1);walk (a.py:5);walk (a.py:5) 3\nmain (a.py:1);read (b.py:2) 2\n")
    profile = Profile.read(raw)
    assert profile.samples == 5
    assert profile.own() == {"walk (a.py:5)": 3, "read (b.py:2)": 2}
    assert profile.inclusive() == {"main (a.py:1)": 5, "walk (a.py:5)": 3, "read (b.py:2)": 2}


def test_processor_time_of_a_process_and_what_it_started() -> None:
    work = "while True: pass"
    script = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {work!r}])"
    with subprocess.Popen([sys.executable, "-c", script], process_group=0) as parent:
        children: list[int] = []
        by_thread: dict[processor.Thread, float] = {}
        before = 0.0
        while min(before, sum(by_thread.values())) < 0.05:
            children = list(processor.below(parent.pid))
            before = processor.seconds(children)
            by_thread = processor.threads(children)
        after = processor.seconds(children)
        for child in children:
            os.kill(child, signal.SIGKILL)
    assert [list(by_thread), len(children)] == [[processor.Thread(pid, pid) for pid in children], 1]
    assert sum(by_thread.values()) >= 0.05
    # The kernel rounds user and system time of a process and of its threads apart, to ticks of 10 ms.
    assert before - 0.02 <= sum(by_thread.values()) <= after + 0.02
    assert processor.seconds(children) == 0.0
