"""What the client of every language must do, given the command lines of its two example programs."""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest

from tandem.live_events import Final
from tandem.results import Transcript
from tests.clients.programs import MEETING, Program, finals, run, run_live, seconds, speech
from tests.support.proxy import cutting_proxy


def one_call_gives_what_python_gets(recognize: Program, target: str, heard: Transcript) -> None:
    outcome = run(recognize(["-target", target, "-json", str(MEETING)]))
    assert outcome.code == 0, outcome.errors
    (answer,) = outcome.lines
    assert answer["text"] == heard.text
    assert [item["text"] for item in answer["segments"]] == [item.text for item in heard.segments]
    words = [word for segment in answer["segments"] for word in segment["words"]]
    ends = [word.end for segment in heard.segments for word in segment.words]
    assert [seconds(word["end"]) for word in words] == pytest.approx(ends)


def a_batch_gives_what_one_call_gives(batch: Program, target: str, heard: Transcript, tmp_path: Path) -> None:
    noise = tmp_path / "noise.wav"
    noise.write_bytes(b"this is no recording" * 50)
    outcome = run(batch(["-target", target, "-json", str(MEETING), str(noise)]))
    assert outcome.code == 0, outcome.errors
    results = {line["key"]: line for line in outcome.lines}
    assert results.keys() == {str(MEETING), str(noise)}
    answer = results[str(MEETING)]["response"]
    assert answer["text"] == heard.text
    assert [item["text"] for item in answer["segments"]] == [item.text for item in heard.segments]
    assert results[str(noise)]["error"]["message"]


def a_batch_that_is_refused_says_why(batch: Program, target: str) -> None:
    outcome = run(batch(["-target", target, str(MEETING), str(MEETING)]))
    assert outcome.code == 1
    assert "already" in outcome.errors.lower()


def bad_audio_is_a_typed_error(recognize: Program, target: str, tmp_path: Path) -> None:
    noise = tmp_path / "noise.wav"
    noise.write_bytes(b"this is no recording" * 50)
    outcome = run(recognize(["-target", target, str(noise)]))
    assert outcome.code == 1
    assert "reason: INVALID_AUDIO" in outcome.errors
    empty = tmp_path / "empty.wav"
    empty.write_bytes(b"")
    assert "field audio: is empty" in run(recognize(["-target", target, str(empty)])).errors


def a_deadline_ends_the_call(recognize: Program, target: str) -> None:
    outcome = run(recognize(["-target", target, "-timeout", "5ms", str(MEETING)]))
    assert outcome.code == 1
    assert "deadline" in outcome.errors.lower().replace("_", "")


def a_dead_server_is_an_error_and_no_hang(recognize: Program) -> None:
    outcome = run(recognize(["-target", "127.0.0.1:1", str(MEETING)]), timeout=30)
    assert outcome.code == 1
    assert "unavailable" in outcome.errors.lower()


def lost_connections_lose_no_word(live: Program, target: str, heard_live: list[Final]) -> None:
    with cutting_proxy(target) as proxy:
        outcome = run_live(live(["-target", proxy.address, "-json", "-"]), speech(), proxy, (3.0, 8.5))
    assert outcome.code == 0, outcome.errors
    assert "reconnects: 2" in outcome.errors
    results = finals(outcome)
    assert [int(item.get("index", 0)) for item in results] == list(range(len(heard_live)))
    assert len(results) >= 2
    ends = [seconds(item["segment"]["end"]) for item in results]
    assert ends == pytest.approx([final.segment.end for final in heard_live], abs=0.001)
    for item, final in zip(results, heard_live, strict=True):
        # A final continues what partials have fixed, so a word may differ with the pace of the audio.
        got, want = item["segment"]["text"].lower().split(), final.segment.text.lower().split()
        assert difflib.SequenceMatcher(None, got, want).ratio() > 0.8, (got, want)
