"""What `tandem stream` prints: finals as lines, the running sentence in place, speakers in colours."""

from __future__ import annotations

import builtins
import contextlib
import io
import os
import signal
import sys
import threading
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from rich.console import Console

from tandem.cli import main
from tandem.cli.stream import Captions, microphone, playing, recording
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
    assert [len(frame) for frame in recording(tmp_path / "a.wav")] == [3200, 3200, 1600]


def test_a_file_plays_until_ctrl_c_and_a_second_one_interrupts(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(30 * 16_000, dtype=np.int16), 16_000)
    before, begun = signal.getsignal(signal.SIGINT), time.monotonic()
    with contextlib.ExitStack() as resources:
        frames = playing(tmp_path / "a.wav", resources)
        assert [len(next(frames)) for _ in range(3)] == [3200] * 3
        assert time.monotonic() - begun >= 0.3
        os.kill(os.getpid(), signal.SIGINT)
        assert list(frames) == []
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_what_breaks_off_leaves_no_running_sentence() -> None:
    file = io.StringIO()
    captions = Captions(Console(file=file, force_terminal=True, width=40, highlight=False))
    captions.show(EVENTS[0])
    captions.clear()
    assert file.getvalue().endswith("\r\x1b[K")


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


class PortAudioError(Exception):
    """As sounddevice names it."""


class Device:
    """What sounddevice opens: calls back with frames from a thread of its own, as PortAudio does."""

    def __init__(self, rate: int, frame: int, *, channels: int, dtype: str, callback: Any) -> None:
        assert (rate, frame, channels, dtype) == (16_000, 1_600, 1, "int16")
        self._thread = threading.Thread(target=self._speak, args=(callback,))
        self.closed = False

    def _speak(self, callback: Any) -> None:
        for number in range(3):
            callback(bytearray(np.full(1600, number, dtype=np.int16).tobytes()), 1600, None, None)
        os.kill(os.getpid(), signal.SIGINT)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self.closed = True


def plug_in(monkeypatch: pytest.MonkeyPatch, device: Any) -> None:
    module = types.SimpleNamespace(RawInputStream=device, PortAudioError=PortAudioError)
    monkeypatch.setitem(sys.modules, "sounddevice", module)


def test_a_microphone_is_heard_until_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, Device)
    before = signal.getsignal(signal.SIGINT)
    with contextlib.ExitStack() as resources:
        frames = [np.frombuffer(frame, dtype=np.int16) for frame in microphone(resources)]
    assert [(len(frame), int(frame[0])) for frame in frames] == [(1600, 0), (1600, 1), (1600, 2)]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_microphone_that_cannot_be_opened_is_a_clear_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PortAudioError("Invalid input device (no default input device)")

    plug_in(monkeypatch, refuse)
    assert main(["stream", "--mic", "--server", "localhost:1"]) != 0
    assert "no usable microphone: Invalid input device" in capsys.readouterr().err


def test_a_language_that_no_prompt_can_hold_is_bad_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "clip.wav"
    file.touch()
    assert main(["stream", "--file", str(file), "--language", "x" * 65]) == 2
    assert capsys.readouterr().err.startswith("tandem stream: config.language: ")
