"""What the bundled model hears in the bundled recordings: a change of the system that changes it shows here.

`TANDEM_UPDATE_SNAPSHOTS=1 pytest tests/golden/test_snapshots.py` writes the snapshot anew, after retraining.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tandem import Client, RecognizeOptions, TimestampSource, Transcript
from tests.support.http import HttpStack
from tests.support.recordings import recording_path
from tests.support.words import word_error

ROOT = Path(__file__).parents[2]
SNAPSHOT = ROOT / "tests" / "data" / "snapshots" / "demo.json"
MEETING = ROOT / "examples" / "meeting.flac"
RECORDINGS = ("meeting.flac", "dialogue_2spk.flac", "meeting_4spk.flac", "english_9s.wav", "mandarin_6s.wav")
FRAME = 0.06


@pytest.fixture(scope="module")
def transcripts(demo_services: HttpStack) -> dict[str, Transcript]:
    options = RecognizeOptions(speakers=True)
    with Client(demo_services.grpc) as client:
        return {name: client.recognize(_path(name), options, timeout=300) for name in RECORDINGS}


def _path(name: str) -> Path:
    return MEETING if name == MEETING.name else recording_path(name)


def _record(transcript: Transcript) -> list[dict[str, Any]]:
    return [
        {
            "text": segment.text,
            "start": segment.start,
            "end": segment.end,
            "speaker": segment.speaker,
            "words": [[word.text, word.start, word.end] for word in segment.words],
        }
        for segment in transcript.segments
    ]


@pytest.mark.parametrize("name", RECORDINGS)
def test_transcripts_are_those_of_the_snapshot(transcripts: dict[str, Transcript], name: str) -> None:
    """Near-ties of the greedy search may differ on another processor: one word in fifty is allowed."""
    if os.environ.get("TANDEM_UPDATE_SNAPSHOTS"):
        SNAPSHOT.parent.mkdir(parents=True, exist_ok=True)
        found = {key: _record(value) for key, value in transcripts.items()}
        SNAPSHOT.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    expected = json.loads(SNAPSHOT.read_text(encoding="utf-8"))[name]
    got = _record(transcripts[name])
    whole = " ".join(segment["text"] for segment in expected)
    assert word_error(whole, " ".join(segment["text"] for segment in got)) <= 0.02
    assert [(s["start"], s["end"], s["speaker"]) for s in got] == [
        (s["start"], s["end"], s["speaker"]) for s in expected
    ]
    for ours, theirs in zip(got, expected, strict=True):
        if ours["text"] == theirs["text"]:
            for (word, start, end), (other, at, until) in zip(ours["words"], theirs["words"], strict=True):
                assert word == other
                assert abs(start - at) <= FRAME + 1e-6
                assert abs(end - until) <= FRAME + 1e-6


def test_the_demo_is_understood_with_times_and_speakers(transcripts: dict[str, Transcript]) -> None:
    truth = json.loads(MEETING.with_suffix(".json").read_text(encoding="utf-8"))
    meeting = transcripts["meeting.flac"]
    assert word_error(truth["text"], meeting.text) <= 0.15
    assert meeting.timestamp_source is TimestampSource.CTC
    assert {segment.speaker for segment in meeting.segments} == {"SPK0", "SPK1"}
    words = [word for segment in meeting.segments for word in segment.words]
    assert all(word.start < word.end for word in words)
    assert [word.start for word in words] == sorted(word.start for word in words)
    first = next(word for word in words if word.text == "Good")
    assert first.start == pytest.approx(truth["turns"][0]["start"], abs=0.15)
