"""`tandem transcribe` as its user runs it: inputs, formats, results that grow, resume, Ctrl-C."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tandem import Client, RecognizeOptions
from tests.support.http import HttpStack
from tests.support.processes import children, is_gone
from tests.support.recordings import recording_path
from tests.support.services import NANO

SHORT = "mandarin_206ms.wav"
COMMAND = [sys.executable, "-m", "tandem", "transcribe"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with short.wav, its copy copy.wav, bad.wav, and lists of them."""
    for name in ("short.wav", "copy.wav"):
        shutil.copy(recording_path(SHORT), tmp_path / name)
    (tmp_path / "bad.wav").write_bytes(b"no audio" * 100)
    (tmp_path / "wav.scp").write_text("one short.wav\ntwo copy.wav\n")
    (tmp_path / "in.jsonl").write_text('{"source": "short.wav"}\n{"key": "three", "source": "copy.wav"}\n')
    return tmp_path


def tandem(folder: Path, services: HttpStack, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, "--server", services.grpc, "--max-new-tokens", "6", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def records(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_the_command_lines_of_the_guide(folder: Path, http_services: HttpStack) -> None:
    done = tandem(folder, http_services, "--input", "short.wav", "--language", "中文")
    assert (done.returncode, done.stderr) == (0, "")
    assert "[0:00.00 - " in done.stdout
    batch = ["--input", "wav.scp", "--tensor-parallel-size", "4", "--batch-size", "32"]
    done = tandem(folder, http_services, *batch)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line for line in done.stdout.splitlines() if line.startswith("==")] == [
        "== short.wav",
        "== copy.wav",
    ]
    saved = ["--hotwords", "张三", "北京", "--output", "results.jsonl"]
    done = tandem(folder, http_services, "--input", "short.wav", *saved)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (record,) = records(folder / "results.jsonl")
    assert record["key"] == "short"
    assert isinstance(record["text"], str)


def test_positional_files_and_lists_together_keep_their_order(folder: Path, http_services: HttpStack) -> None:
    done = tandem(folder, http_services, "short.wav", "wav.scp", "--input", "in.jsonl", "-o", "out.jsonl")
    assert done.returncode == 0
    found = [(record["key"], record["file"]) for record in records(folder / "out.jsonl")]
    files = ["short.wav", "short.wav", "copy.wav", "short.wav", "copy.wav"]
    assert found == list(zip(["short", "one", "two", "short_1", "three"], files, strict=True))


@pytest.mark.parametrize("style", ["json", "jsonl", "srt", "vtt", "tsv", "txt"])
def test_the_output_name_says_the_format(
    folder: Path, http_services: HttpStack, english: Path, style: str
) -> None:
    done = tandem(folder, http_services, str(english), "-o", f"out.{style}")
    assert done.returncode == 0
    printed = tandem(folder, http_services, str(english), "--format", style.replace("txt", "text"))
    written = (folder / f"out.{style}").read_text(encoding="utf-8")
    if style.startswith("json"):
        assert {**json.loads(written), "timing": 0, "rtf": 0, "request_id": 0} == {
            **json.loads(printed.stdout),
            "timing": 0,
            "rtf": 0,
            "request_id": 0,
        }
    else:
        assert written.strip() == printed.stdout.strip()
    assert {"srt": "-->", "vtt": "WEBVTT", "tsv": "start\t", "txt": "[0:0"}.get(
        style, '"segments"'
    ) in written


def test_a_folder_gets_a_file_each(folder: Path, http_services: HttpStack) -> None:
    (folder / "out").mkdir()
    done = tandem(folder, http_services, "wav.scp", "-o", "out", "--format", "srt")
    assert done.returncode == 0
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["one.srt", "two.srt"]
    again = tandem(folder, http_services, "wav.scp", "short.wav", "-o", "out", "--format", "srt", "--resume")
    assert again.stderr == "2 of 3 are done already\n"
    assert (folder / "out" / "short.srt").exists()


def test_keys_that_look_alike_have_a_file_each_in_a_folder_that_is_made(
    folder: Path, http_services: HttpStack
) -> None:
    (folder / "wav.scp").write_text("a/b short.wav\na_b copy.wav\n.. short.wav\n")
    done = tandem(folder, http_services, "wav.scp", "-o", "new/", "--format", "jsonl")
    assert (done.returncode, done.stderr) == (0, "")
    found = {path.name: records(path)[0]["key"] for path in (folder / "new").iterdir()}
    assert found == {"a%2Fb.jsonl": "a/b", "a_b.jsonl": "a_b", "%2E%2E.jsonl": ".."}
    (folder / "new" / "a_b.jsonl").unlink()
    again = tandem(folder, http_services, "wav.scp", "-o", "new/", "--format", "jsonl", "--resume")
    assert (again.returncode, again.stderr) == (0, "2 of 3 are done already\n")
    assert records(folder / "new" / "a_b.jsonl")[0]["key"] == "a_b"


def test_a_list_that_is_not_utf_8_is_told_in_one_line(folder: Path, http_services: HttpStack) -> None:
    (folder / "wav.scp").write_bytes("会议 short.wav\n".encode("gbk"))
    done = tandem(folder, http_services, "wav.scp")
    assert (done.returncode, done.stderr) == (1, "tandem transcribe: wav.scp is not UTF-8\n")


def test_files_that_fail_are_reported_and_the_others_go_on(folder: Path, http_services: HttpStack) -> None:
    done = tandem(folder, http_services, "short.wav", "bad.wav", "missing.wav", "copy.wav", "-o", "out.jsonl")
    assert done.returncode == 1
    assert [record["key"] for record in records(folder / "out.jsonl")] == ["short", "copy"]
    missing, bad = done.stderr.splitlines()
    assert missing == "missing.wav: no such file"
    assert bad.startswith("bad.wav: ")
    assert "Traceback" not in done.stderr


def test_resume_skips_what_is_there_and_repairs_a_cut_line(folder: Path, http_services: HttpStack) -> None:
    assert tandem(folder, http_services, "wav.scp", "-o", "out.jsonl").returncode == 0
    first, second = (folder / "out.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "out.jsonl").write_bytes(first + second[:30])
    done = tandem(folder, http_services, "wav.scp", "bad.wav", "-o", "out.jsonl", "--resume")
    assert done.returncode == 1
    assert "1 of 3 are done already" in done.stderr
    assert [record["key"] for record in records(folder / "out.jsonl")] == ["one", "two"]
    assert (folder / "out.jsonl").read_bytes().startswith(first)


def test_resume_leaves_a_file_that_is_not_its_own_alone(folder: Path, http_services: HttpStack) -> None:
    done = tandem(folder, http_services, "short.wav", "-o", "in.jsonl", "--resume")
    assert done.returncode == 1
    assert "in.jsonl is no output of this command" in done.stderr
    assert len(records(folder / "in.jsonl")) == 2


def test_speakers_and_timing(folder: Path, http_services: HttpStack) -> None:
    dialogue = str(recording_path("dialogue_2spk.flac"))
    done = tandem(folder, http_services, dialogue, "--num-speakers", "2", "--format", "json", "--timing")
    assert done.returncode == 0
    assert {segment["speaker"] for segment in json.loads(done.stdout)["segments"]} <= {"SPK0", "SPK1"}
    assert "s of audio in" in done.stderr


def test_ctrl_c_ends_the_services_and_keeps_what_was_written(folder: Path, http_services: HttpStack) -> None:
    (folder / "wav.scp").write_text("".join(f"key{i} short.wav\n" for i in range(300)))
    own = ["--model", str(NANO), "--engine", "transformers", "--device", "cpu", "--batch-size", "2"]
    command = [*COMMAND, *own, "--max-new-tokens", "6", "wav.scp", "-o", "out.jsonl"]
    running = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    out = folder / "out.jsonl"
    deadline = time.monotonic() + 120
    while not (out.exists() and out.read_bytes().count(b"\n") >= 3) and time.monotonic() < deadline:
        assert running.poll() is None
        time.sleep(0.02)
    services = children(running.pid)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=30)
    assert running.returncode == 130
    assert "Traceback" not in errors
    assert len(services) >= 3
    assert all(is_gone(pid) for pid in services)
    written = len(records(out))
    assert 3 <= written < 300
    done = tandem(folder, http_services, "wav.scp", "-o", "out.jsonl", "--resume", "--batch-size", "8")
    assert f"{written} of 300 are done already" in done.stderr
    assert [record["key"] for record in records(out)] == [f"key{i}" for i in range(300)]


def test_a_service_that_dies_is_told_with_its_log(folder: Path) -> None:
    (folder / "wav.scp").write_text("".join(f"key{i} short.wav\n" for i in range(300)))
    own = ["--model", str(NANO), "--engine", "transformers", "--device", "cpu", "--batch-size", "2"]
    command = [*COMMAND, *own, "--max-new-tokens", "6", "wav.scp", "-o", "out.jsonl"]
    running = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    out = folder / "out.jsonl"
    while not (out.exists() and out.stat().st_size):
        assert running.poll() is None
        time.sleep(0.02)
    gateway = next(pid for pid in children(running.pid) if _module(pid) == "gateway")
    os.kill(gateway, signal.SIGKILL)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 1
    assert "gateway exited with code -9" in errors


def _module(pid: int) -> str:
    words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return words[words.index("-m") + 1] if "-m" in words else ""


def test_results_equal_the_typed_client(folder: Path, http_services: HttpStack, english: Path) -> None:
    done = tandem(folder, http_services, str(english), "--format", "jsonl", "--max-new-tokens", "20")
    with Client(http_services.grpc) as client:
        assert (
            json.loads(done.stdout)["text"]
            == client.recognize(english, RecognizeOptions(max_new_tokens=20)).text
        )
