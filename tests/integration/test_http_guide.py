"""The client code of FunASR's guide, as it stands there, against this server."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.http import HttpStack

GUIDE = Path(__file__).parents[1] / "data" / "guide"


@pytest.fixture
def folder(tmp_path: Path, english: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of the guide's reader."""
    for name in ("audio.wav", "meeting.wav"):
        shutil.copy(english, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def code_of(name: str, services: HttpStack) -> str:
    text = (GUIDE / f"{name}.txt").read_text(encoding="utf-8")
    assert "localhost:8899" in text
    return text.replace("localhost:8899", services.address)


def run_python(name: str, services: HttpStack, folder: Path) -> dict[str, Any]:
    script = folder / name
    script.write_text(code_of(name, services), encoding="utf-8")
    return runpy.run_path(str(script))


def run_shell(name: str, services: HttpStack) -> dict[str, Any]:
    done = subprocess.run(
        ["bash", "-c", code_of(name, services)], capture_output=True, text=True, timeout=60, check=True
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.fixture
def answer(http: httpx.Client, english: Path) -> dict[str, Any]:
    """What the server says to the plain request."""
    response = http.post("/asr", files={"file": english.open("rb")}, data={"language": "中文"})
    body: dict[str, Any] = response.json()
    return body


def test_python_requests(http_services: HttpStack, folder: Path, answer: dict[str, Any]) -> None:
    result = run_python("asr_requests.py", http_services, folder)["result"]
    assert result["text"] == answer["text"]


def test_curl_asr(http_services: HttpStack, folder: Path, answer: dict[str, Any]) -> None:
    assert run_shell("asr.sh", http_services)["text"] == answer["text"]


def test_curl_openai(http_services: HttpStack, folder: Path) -> None:
    result = run_shell("openai.sh", http_services)
    assert result["task"] == "transcribe"
    assert result["text"] == "".join(segment["text"] for segment in result["segments"])


def test_openai_sdk(http_services: HttpStack, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run_python("openai_sdk.py", http_services, folder)["result"]
    assert result.text
    assert capsys.readouterr().out == result.text + "\n"


def test_websockets(
    http_services: HttpStack, folder: Path, answer: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run_python("offline_ws.py", http_services, folder)
    (segment,) = answer["segments"]
    assert capsys.readouterr().out == f"[{segment['start']:.1f}s] {segment['text']}\n"


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_javascript_fetch(http_services: HttpStack, folder: Path, answer: dict[str, Any]) -> None:
    script = (
        'import fs from "node:fs";\nconst audioBlob = new Blob([fs.readFileSync("audio.wav")]);\n'
        + code_of("asr_fetch.js", http_services)
        + "\nconsole.log(JSON.stringify(result));\n"
    )
    done = subprocess.run(
        ["node", "--input-type=module", "-e", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(done.stdout)["text"] == answer["text"]
