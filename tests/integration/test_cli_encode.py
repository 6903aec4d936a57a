"""`tandem encode` against a running encoder, and what it says to a file or an address that is none."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest

from tandem.cli import main
from tests.support.http import HttpStack
from tests.support.recordings import recording_path

SHORT = str(recording_path("mandarin_206ms.wav"))


@pytest.mark.parametrize("name", ["noext", "out.npz", "out.v2"])
def test_what_is_reported_is_what_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], http_services: HttpStack, name: str
) -> None:
    encoder = http_services.stack.config.addresses.encoder
    with contextlib.chdir(tmp_path):
        assert main(["encode", SHORT, "-o", name, "--server", encoder]) == 0
        assert [path.name for path in Path.cwd().iterdir()] == [name]
        with np.load(name) as arrays:
            shape = list(arrays["audio_embeds"].shape)
    assert capsys.readouterr().out.startswith(f"{name}: audio_embeds {shape}")


def test_a_gateway_is_no_encoder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], http_services: HttpStack
) -> None:
    output = tmp_path / "out.npz"
    assert main(["encode", SHORT, "-o", str(output), "--server", http_services.grpc]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"tandem encode: {http_services.grpc} is no encoder")
    assert "needs the encoder's address" in error
    assert not output.exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", ""),
        (b"ID3", ""),
        (b"no audio" * 100, " (file does not start with RIFF id)"),
    ],
)
def test_a_file_that_is_no_wav_is_told_before_an_encoder_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, reason: str
) -> None:
    file = tmp_path / "talk.mp3"
    file.write_bytes(content)
    # No encoder comes up for a model that is not there.
    flags = ["--model", str(tmp_path / "nowhere"), "-o", str(tmp_path / "out.npz")]
    assert main(["encode", str(file), *flags]) == 1
    said = f"tandem encode: {file}: needs a 16 kHz mono 16-bit wav file{reason}\n"
    assert capsys.readouterr().err == said
