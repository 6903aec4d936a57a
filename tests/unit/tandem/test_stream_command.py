"""What `tandem stream` prints: finals as lines, the running sentence in place, speakers in colours."""

from __future__ import annotations

import builtins
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from rich.console import Console

from tandem.cli import main
from tandem.cli.stream import Captions, recording
from tandem.live_events import Ended, EndReason, Final, LiveEvent, Partial, Refined
from tandem.results import Segment


def shown(events: list[LiveEvent], *, terminal: bool, width: int = 40) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=width, highlight=False)
    captions = Captions(console)
    for event in events:
        captions.show(event)
    return file.getvalue()


EVENTS: list[LiveEvent] = [
    Partial(0, 0.0, 1.0, "", "helo", 0.0),
    Partial(0, 0.0, 2.0, "hello", " wor", 0.8),
    Final(0, Segment("hello world", 0.0, 2.5)),
    Final(1, Segment("", 3.0, 3.5)),
    Final(2, Segment("good bye", 62.0, 63.0, speaker="SPK1")),
    Ended(EndReason.CLIENT, 64.0),
]


def test_a_pipe_gets_only_finals() -> None:
    assert shown(EVENTS, terminal=False) == "[0:00.00] hello world\n[1:02.00] SPK1 good bye\n"


def test_a_terminal_has_the_running_sentence_rewritten_in_place() -> None:
    text = shown(EVENTS, terminal=True)
    running, _, rest = text.partition("hello world")
    assert running.count("\r\x1b[K") == 3
    assert "\n" not in running
    assert "\x1b[1;35mSPK1" in rest


def test_a_long_running_sentence_stays_on_one_line() -> None:
    text = shown([Partial(0, 0.0, 9.0, "a" * 100, "的确z", 0.9)], terminal=True, width=30)
    visible = text.replace("\r\x1b[K", "").replace("\x1b[2m", "").replace("\x1b[0m", "")
    assert visible.startswith("…")
    assert visible.endswith("的确z")
    assert len(visible) <= 29


def test_speakers_of_the_whole_session_are_printed_when_they_changed() -> None:
    events = [*EVENTS[:-1], Refined(0, Segment("hello world", 0.0, 2.5, speaker="SPK0")), EVENTS[-1]]
    lines = shown(events, terminal=False).splitlines()
    assert lines[2:] == [
        "speakers of the whole session:",
        "[0:00.00] SPK0 hello world",
        "[1:02.00] SPK1 good bye",
    ]


def test_a_file_comes_in_frames_of_100_ms(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(4000, dtype=np.int16), 16_000)
    assert [len(frame) for frame in recording(tmp_path / "a.wav", realtime=False)] == [3200, 3200, 1600]


def test_a_missing_microphone_package_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: Any, **more: Any) -> Any:
        if name == "sounddevice":
            raise ImportError("No module named 'sounddevice'")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert main(["stream", "--mic", "--server", "unix:/nowhere"]) == 1
    assert "tandem-asr[mic]" in capsys.readouterr().err
