"""FSMN-VAD segments and live events, exactly as the published implementation reports them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.vad.detector import Boundary, VadEvent
from gateway.vad.fsmn import FsmnVad
from gateway.vad.segmenter import VadOptions, VadStream, segment
from tests.support.recordings import DATA, recording, vad_weights

_EXPECTED = json.loads((DATA / "golden" / "vad" / "expected.json").read_text(encoding="utf-8"))
_FILES = {"mandarin_6s.wav": "mandarin_6s.wav"}
_FILES |= {"dialogue_2spk.wav": "dialogue_2spk.flac", "meeting_4spk.wav": "meeting_4spk.flac"}
_TIGHT = ((3000, 1500), (8000, 800), (math.inf, 400))


@pytest.fixture(scope="module")
def model() -> FsmnVad:
    return FsmnVad(vad_weights())


@pytest.fixture(params=_EXPECTED["recordings"], ids=lambda entry: str(entry["wav"]))
def entry(request: pytest.FixtureRequest) -> dict[str, Any]:
    described: dict[str, Any] = request.param
    assert len(recording(_FILES[described["wav"]])) == described["samples"]
    return described


def _live(stream: VadStream, wav: str, chunk: int) -> Iterator[tuple[int, list[VadEvent]]]:
    """Feeds a recording in chunks; yields ms fed so far and the events that came of it."""
    samples = recording(_FILES[wav])
    for first in range(0, len(samples), chunk):
        last = min(len(samples), first + chunk)
        events = stream.push(samples[first:last])
        if last == len(samples):
            events += stream.finish()
        yield last // 16, events


@pytest.mark.parametrize("silence_ms", [800, 500])
def test_fixed_silence_offline(model: FsmnVad, entry: dict[str, Any], silence_ms: int) -> None:
    options = VadOptions(dynamic_silence=False, fixed_silence_ms=silence_ms)
    segments = segment(model, recording(_FILES[entry["wav"]]), options)
    assert [[s.start_ms, s.end_ms] for s in segments] == entry["offline"][f"fixed_{silence_ms}ms"]


def test_fixed_silence_live(model: FsmnVad, entry: dict[str, Any]) -> None:
    stream = VadStream.live(model, VadOptions(dynamic_silence=False))
    reported = []
    for after_ms, events in _live(stream, entry["wav"], chunk=3200):
        pairs = [[e.time_ms, -1] if e.boundary is Boundary.START else [-1, e.time_ms] for e in events]
        if pairs:
            reported.append({"after_ms": after_ms, "events": pairs})
    assert reported == entry["streaming"]["fixed_800ms_200ms_chunks"]


@pytest.mark.parametrize(("name", "schedule"), [("default", None), ("tight", _TIGHT)])
def test_dynamic_silence_live(
    model: FsmnVad, entry: dict[str, Any], name: str, schedule: tuple[tuple[float, float], ...] | None
) -> None:
    stream = VadStream.live(model, VadOptions(silence_schedule=schedule))
    reported, start = [], -1
    for after_ms, events in _live(stream, entry["wav"], chunk=960):
        for event in events:
            if event.boundary is Boundary.START:
                start = event.time_ms
            else:
                reported.append({"after_ms": after_ms, "segment": [start, event.time_ms]})
    assert reported == entry["streaming"][f"dynamic_60ms_{name}"]
