"""Where `tandem transcribe` writes: no transcript replaces another, no file is made that nothing can read."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from tandem.cli import main
from tandem.cli.output import Style, open_sink, style_for
from tandem.cli.usage import UsageError
from tandem.errors import AlreadyExists
from tandem.inputs import Recording
from tandem.results import Segment, Transcript


def transcript(text: str) -> Transcript:
    return Transcript(text, (Segment(text, 0.0, 1.0),), 1.0)


def recording(key: str) -> Recording:
    return Recording(key, f"{key}.wav", lambda: b"")


def write(output: str, keys: Sequence[str], *, style: str = "text") -> None:
    """A transcript for each key, which says the key."""
    with open_sink(output, Style(style), resume=False, several=len(keys) > 1) as sink:
        for key in keys:
            sink.write(recording(key), transcript(key))


def texts(folder: Path) -> dict[str, str]:
    return {
        path.name: path.read_text(encoding="utf-8").split("] ")[-1].rstrip("\n") for path in folder.iterdir()
    }


KEYS = ["a/b", "a_b", "a%2Fb", "..", ".", "...", "%2E", ".a", "a", "a.b", "a\0b", "会议/1", "/a"]


def test_every_key_has_a_file_of_its_own_in_the_folder(tmp_path: Path) -> None:
    write(str(tmp_path), KEYS)
    found = texts(tmp_path)
    assert sorted(found.values()) == sorted(KEYS)
    assert not [name for name in found if name.startswith(".")]
    assert found["a_b.txt"] == "a_b" and found["a%2Fb.txt"] == "a/b" and found["会议%2F1.txt"] == "会议/1"


def test_resume_knows_each_key_by_itself(tmp_path: Path) -> None:
    write(str(tmp_path), ["a/b", ".."])
    with open_sink(str(tmp_path), Style(), resume=True, several=True) as sink:
        assert [key for key in KEYS if sink.has(recording(key))] == ["a/b", ".."]


def test_a_file_of_an_earlier_run_is_replaced_and_one_of_this_run_never(tmp_path: Path) -> None:
    write(str(tmp_path), ["a"])
    with open_sink(str(tmp_path), Style(), resume=False, several=True) as sink:
        sink.write(recording("a"), transcript("again"))
        # As on a disk that does not tell capitals from other letters.
        os.link(tmp_path / "a.txt", tmp_path / "A.txt")
        for key in ("a", "A"):
            with pytest.raises(
                AlreadyExists, match=rf"^{key}\.wav: .*{key}\.txt has the transcript of another"
            ):
                sink.write(recording(key), transcript("other"))
    assert texts(tmp_path) == {"a.txt": "again", "A.txt": "again"}


def test_a_name_with_a_slash_at_its_end_is_a_folder_that_is_made(tmp_path: Path) -> None:
    write(f"{tmp_path}/new/deep/", ["a", "b"], style="srt")
    assert sorted(path.name for path in (tmp_path / "new" / "deep").iterdir()) == ["a.srt", "b.srt"]
    (tmp_path / "plain").write_text("mine", encoding="utf-8")
    with pytest.raises(OSError):
        write(f"{tmp_path}/plain/", ["a"])
    assert (tmp_path / "plain").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("style", ["json", "srt", "vtt"])
def test_several_recordings_do_not_go_into_one_file_of_these(tmp_path: Path, style: str) -> None:
    output = tmp_path / f"out.{style}"
    output.write_text("before", encoding="utf-8")
    assert style_for(str(output), None) == style
    with pytest.raises(UsageError, match="give a folder, or jsonl"):
        write(str(output), ["a", "b"], style=style)
    assert output.read_text(encoding="utf-8") == "before"
    write(str(output), ["a"], style=style)
    assert output.read_text(encoding="utf-8") != "before"


@pytest.mark.parametrize("style", ["text", "jsonl", "tsv"])
def test_several_recordings_go_into_one_file_of_these(tmp_path: Path, style: str) -> None:
    write(str(tmp_path / "out"), ["a", "b"], style=style)
    assert (tmp_path / "out").stat().st_size


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no input"),
        (["a.wav", "--resume"], "--resume continues an --output"),
        (["a.wav", "--resume", "-o", "out.srt"], "--resume continues jsonl or a folder"),
        (["a.wav", "b.wav", "-o", "out.json"], "give a folder, or jsonl"),
        (["a.wav", "--max-new-tokens", str(2**32)], "config.max_new_tokens"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    with contextlib.chdir(tmp_path):
        assert main(["transcribe", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("tandem transcribe: ") and said in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_fewer_encoders_than_decoders_are_bad_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.wav"
    file.touch()
    assert main(["transcribe", str(file), "--encoders", "1", "--decoders", "2"]) == 2
    assert "2 decoders need as many encoders" in capsys.readouterr().err
