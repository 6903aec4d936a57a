"""Runs the example programs of the clients, as their users would."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from tests.support.locks import alone
from tests.support.proxy import CuttingProxy

ROOT = Path(__file__).parents[2]
MEETING = ROOT / "examples" / "meeting.flac"
FRAME_BYTES = 3200
LANGUAGES = ("go", "java", "node")
Program = Callable[[Sequence[str]], list[str]]
"""A command line with the given flags."""
_FIRST_TURN_END, _LAST_TURN_END = 3.4, 13.3


@functools.cache
def speech() -> bytes:
    """Two utterances from the recording as raw samples (16 kHz, 16 bit), each with two seconds of silence."""
    with av.open(str(MEETING)) as container:
        resampler = av.AudioResampler("s16", "mono", 16_000)
        frames = [out for frame in container.decode(audio=0) for out in resampler.resample(frame)]
    samples = np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames])
    silence = np.zeros(2 * 16_000, np.int16)
    first, last = _FIRST_TURN_END * 16_000, _LAST_TURN_END * 16_000
    pieces = [samples[: round(first)], silence, samples[round(first) : round(last)], silence]
    return bytes(np.concatenate(pieces).tobytes())


_RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID") or str(uuid.uuid4())
"""All processes of this run of the suite have it."""
_BUILDER = ThreadPoolExecutor(1, thread_name_prefix="build-clients")


@functools.cache
def start_build(language: str) -> Future[Path]:
    """Run clients/<language>/build.sh beside whatever else runs, one build at a time."""
    return _BUILDER.submit(_build, language)


def build(language: str) -> Path:
    """The client's folder, built. Fails with the build's output."""
    return start_build(language).result()


def _build(language: str) -> Path:
    folder = ROOT / "clients" / language
    with alone(f"build-{language}") as note:
        if note.read() != _RUN:
            command = ["nice", "bash", str(folder / "build.sh")]
            done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
            assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
            note.truncate(0)
            note.write(_RUN)
    return folder


def example(language: str, name: str) -> Program:
    """The command line of an example program ("recognize" or "live") with the given flags; builds it."""
    folder = build(language)
    start = {
        "go": [str(folder / "build" / "bin" / name)],
        "java": ["bash", str(folder / "run.sh"), name.capitalize()],
        "node": ["node", str(folder / "examples" / f"{name}.js")],
    }
    return lambda flags: [*start[language], *flags]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a program ended. `lines` are the JSON objects that it printed."""

    code: int
    lines: list[dict[str, Any]]
    errors: str


def run(command: Sequence[str], timeout: float = 120.0) -> Outcome:
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    return Outcome(done.returncode, _lines(done.stdout), done.stderr)


def run_live(
    command: Sequence[str], audio: bytes, proxy: CuttingProxy, cuts: Sequence[float], speed: float = 4.0
) -> Outcome:
    """Feed audio to standard input at `speed` times its pace; reset connections at these seconds of it."""
    program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    cut: list[int] = []
    feeder = threading.Thread(target=_feed, args=(program, audio, proxy, list(cuts), speed, cut.append))
    feeder.start()
    try:
        # communicate() would close standard input that the feeder still writes to.
        errors: list[bytes] = []
        assert program.stdout is not None and program.stderr is not None
        reader = threading.Thread(target=lambda stream: errors.append(stream.read()), args=(program.stderr,))
        reader.start()
        output = program.stdout.read()
        code = program.wait(60)
        reader.join()
    finally:
        program.kill()
        feeder.join()
    assert all(cut) and len(cut) == len(cuts), f"connections cut: {cut}"
    return Outcome(code, _lines(output.decode()), errors[0].decode())


def _feed(
    program: subprocess.Popen[bytes],
    audio: bytes,
    proxy: CuttingProxy,
    cuts: list[float],
    speed: float,
    report: Callable[[int], None],
) -> None:
    assert program.stdin is not None
    with program.stdin:
        program.stdin.write(audio[:FRAME_BYTES])
        program.stdin.flush()
        _wait_connected(proxy)
        begin = time.monotonic()
        for first in range(FRAME_BYTES, len(audio), FRAME_BYTES):
            at = first / 32_000
            time.sleep(max(0.0, begin + at / speed - time.monotonic()))
            if cuts and at >= cuts[0]:
                cuts.pop(0)
                report(proxy.cut())
            try:
                program.stdin.write(audio[first : first + FRAME_BYTES])
                program.stdin.flush()
            except BrokenPipeError:
                return


def _wait_connected(proxy: CuttingProxy, timeout: float = 30.0) -> None:
    """A program that starts slowly has its connection before the audio's pace begins."""
    deadline = time.monotonic() + timeout
    while not proxy.accepted and time.monotonic() < deadline:
        time.sleep(0.01)


def _lines(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def finals(outcome: Outcome) -> list[dict[str, Any]]:
    """The final results among the events of a live program, in protobuf's JSON form."""
    return [line["result"] for line in outcome.lines if line.get("result", {}).get("isFinal")]


def seconds(text: str) -> float:
    """A duration in protobuf's JSON form."""
    return float(text.removesuffix("s"))
