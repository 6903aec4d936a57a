"""A recording of two channels, mixed and each by itself: over gRPC, HTTP and on the command line."""

from __future__ import annotations

from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile

from tandem import Client, RecognizeOptions
from tandem.cli import main
from tests.support.http import HttpStack

OPTIONS = RecognizeOptions(vad=False, max_new_tokens=24)


@pytest.fixture
def call(english: Path, tmp_path: Path) -> Path:
    """As telephone recorders write them, A-law at 8 kHz: speech on the left, its second half on the right."""
    samples, _ = soundfile.read(english)
    silence = np.zeros(len(samples) // 2)
    right = np.concatenate([samples[len(silence) :], silence])[: len(samples)]
    path = tmp_path / "call.wav"
    soundfile.write(path, np.stack([samples, right], axis=1)[::2], 8000, "ALAW")
    return path


def test_each_channel_is_heard_as_if_alone(
    http: httpx.Client,
    http_services: HttpStack,
    call: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    both, rate = soundfile.read(call)
    with Client(http_services.grpc) as client:
        alone = []
        for index in range(2):
            path = tmp_path / f"{index}.wav"
            soundfile.write(path, both[:, index], rate, "ALAW")
            alone.append(client.recognize(path, OPTIONS, timeout=60).text)
    assert alone[0] != alone[1]
    fields = {"vad": "false", "max_new_tokens": "24", "separate_channels": "true"}
    answer = http.post("/asr", files={"file": call.read_bytes()}, data=fields)
    segments = answer.json()["segments"]
    assert [(s["channel"], s["text"]) for s in segments] == [(1, alone[0]), (2, alone[1])]
    verbose = {**fields, "response_format": "verbose_json"}
    answer = http.post("/v1/audio/transcriptions", files={"file": call.read_bytes()}, data=verbose)
    assert [(s["channel"], s["text"]) for s in answer.json()["segments"]] == list(enumerate(alone, 1))
    flags = ["--no-vad", "--max-new-tokens", "24", "--separate-channels", "--server", http_services.grpc]
    assert main(["transcribe", str(call), *flags]) == 0
    lines = [line.partition("] ")[2] for line in capsys.readouterr().out.splitlines()]
    assert lines == [f"channel {index} {text}" for index, text in enumerate(alone, 1)]


def test_the_mix_has_no_channel(http: httpx.Client, call: Path) -> None:
    answer = http.post(
        "/asr", files={"file": call.read_bytes()}, data={"vad": "false", "max_new_tokens": "24"}
    )
    assert ["channel" in segment for segment in answer.json()["segments"]] == [False]
