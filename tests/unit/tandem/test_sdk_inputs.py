"""What may be given to generate(): the recordings found, their keys, and samples as files."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import torch

from tandem.errors import InvalidRequest
from tandem.inputs import recordings
from tandem.waves import to_wav, wav_duration

TONE = np.sin(np.arange(1600) / 5).astype(np.float32) / 2


def keys(inputs: object) -> list[str]:
    return [item.key for item in recordings(inputs)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with x/a.wav and y/a.wav."""
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.wav").write_bytes(name.encode())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_keys_are_those_of_the_published_engine() -> None:
    assert keys("dir/meeting.v2.wav") == ["meeting.v2"]
    assert keys(["a.wav", TONE, (TONE, 8000), Path("b.mp3")]) == ["a", "sample_1", "sample_2", "b"]
    assert keys(TONE) == keys((TONE, 8000)) == keys(torch.from_numpy(TONE)) == keys(b"RIFF") == ["sample_0"]


def test_keys_that_occur_again_are_numbered_past_those_taken() -> None:
    assert keys(["x/a.wav", "y/a.wav", "a_1.wav", "a.wav"]) == ["a", "a_1", "a_1_1", "a_2"]


def test_scp_gives_keys_and_paths(folder: Path) -> None:
    (folder / "wav.scp").write_text("one x/a.wav\n\ntwo\ty/a.wav\nx/a.wav\n", encoding="utf-8")
    found = list(recordings("wav.scp"))
    assert [(item.key, item.load()) for item in found] == [("one", b"x"), ("two", b"y"), ("a", b"x")]


def test_jsonl_gives_sources_and_optional_keys(folder: Path) -> None:
    (folder / "in.jsonl").write_text(
        '{"source": "x/a.wav"}\n{"key": 7, "source": "y/a.wav", "target": "-"}\n'
    )
    assert [(item.key, item.load()) for item in recordings("in.jsonl")] == [("a", b"x"), ("7", b"y")]


def test_paths_of_a_list_elsewhere_start_at_the_list(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "wav.scp").write_text("one x/a.wav\n")
    monkeypatch.chdir("/")
    assert [item.load() for item in recordings(folder / "wav.scp")] == [b"x"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("in.jsonl", '{"source": "a.wav"}\n{"wav": "b.wav"}\n'),
        ("in.jsonl", '{"source": "a.wav"}\nb.wav\n'),
        ("wav.scp", "one a.wav\ntwo sox b.wav -t wav - |\n"),
    ],
)
def test_a_bad_line_is_named(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    with pytest.raises(InvalidRequest, match=f"{name} line 2"):
        keys(name)


@pytest.mark.parametrize(
    ("name", "line"), [("wav.scp", "会议 x/a.wav\n"), ("in.jsonl", '{"key": "会议", "source": "x/a.wav"}\n')]
)
def test_a_list_that_is_not_utf_8_is_named(folder: Path, name: str, line: str) -> None:
    (folder / name).write_bytes(line.encode("gbk"))
    with pytest.raises(InvalidRequest, match=f"{name} is not UTF-8"):
        keys(name)


def test_an_open_file_is_one_recording(folder: Path) -> None:
    lines = b"RIFF\nof several\nlines\n"
    (folder / "meeting.wav").write_bytes(lines)
    with Path("meeting.wav").open("rb") as file:
        (found,) = recordings(file)
    assert (found.key, found.name, found.load()) == ("meeting", "meeting.wav", lines)
    memory = io.BytesIO(lines)
    (found,) = recordings(memory)
    assert (found.key, found.name) == ("sample_0", "sample_0")
    # An upload that is taken up again loads it again.
    assert found.load() == found.load() == lines
    with tempfile.TemporaryFile() as unnamed:
        assert keys(["a.wav", unnamed, io.BytesIO(lines)]) == ["a", "sample_1", "sample_2"]


def test_files_that_a_generator_closes_are_read_at_their_turn(folder: Path) -> None:
    def files() -> Iterator[BinaryIO]:
        for name in ("x/a.wav", "y/a.wav"):
            with Path(name).open("rb") as file:
                yield file

    assert [(item.key, item.load()) for item in list(recordings(files()))] == [("a", b"x"), ("a_1", b"y")]


def test_a_file_of_text_is_refused(folder: Path) -> None:
    with (
        Path("x/a.wav").open(encoding="utf-8") as file,
        pytest.raises(TypeError, match=r"a\.wav: not opened in"),
    ):
        keys(file)


def test_nothing_is_read_before_its_turn() -> None:
    taken = []

    def names() -> Iterator[str]:
        for name in ("a.wav", "b.wav", "c.wav"):
            taken.append(name)
            yield name

    assert next(recordings(names())).key == "a"
    assert taken == ["a.wav"]


def test_what_is_no_audio_is_refused() -> None:
    with pytest.raises(TypeError, match="sample_1: cannot transcribe a int"):
        keys(["a.wav", 5])


@pytest.mark.parametrize("rate", [8000, 16000])
@pytest.mark.parametrize(
    "kind", ["float32", "float64", "int16", "tensor", "half", "channels last", "channels first"]
)
def test_samples_keep_their_values_and_rate(kind: str, rate: int) -> None:
    stereo = np.stack([TONE, -TONE])
    samples = {
        "float32": TONE,
        "float64": TONE.astype(np.float64),
        "int16": (TONE * 32767).astype(np.int16),
        "tensor": torch.from_numpy(TONE),
        "half": torch.from_numpy(TONE).half(),
        "channels last": stereo.T,
        "channels first": stereo,
    }[kind]
    wav = to_wav(samples, rate)
    read, found_rate = soundfile.read(io.BytesIO(wav), dtype="float32")
    assert found_rate == rate
    expected = stereo.T if kind.startswith("channels") else TONE
    assert read == pytest.approx(expected, abs={"int16": 5e-5, "half": 5e-4}.get(kind, 0))
    assert wav_duration(wav, len(wav)) == pytest.approx(1600 / rate, rel=0.02)


@pytest.mark.parametrize(
    ("samples", "error"),
    [
        (np.zeros(0, np.float32), ValueError),
        (np.zeros((2, 3, 4), np.float32), ValueError),
        (np.full(10, np.nan, np.float32), ValueError),
        (np.zeros(10, np.int64), TypeError),
    ],
)
def test_samples_that_make_no_sense_are_refused(samples: npt.NDArray[Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        to_wav(samples)


def test_durations_of_other_formats_are_unknown() -> None:
    assert wav_duration(b"fLaC" + bytes(100), 104) is None
    assert wav_duration(b"RIFF\0\0\0\0WAVE", 12) is None
