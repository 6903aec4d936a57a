"""`tandem key`: a key once, its hash for the gateway; a name that the file cannot hold is bad usage."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.keys import KeyRing
from tandem.cli import main


def test_the_gateway_knows_the_printed_key_by_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "keys.txt"
    for name in ("first", "second"):
        assert main(["key", name, "--file", str(file)]) == 0
    first, second = capsys.readouterr().out.split()
    ring = KeyRing(file)
    assert [ring.name_of_key(key) for key in (first, second)] == ["first", "second"]
    assert first not in file.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["a b", "a\nb", ""])
def test_a_name_with_spaces_is_bad_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    file = tmp_path / "keys.txt"
    assert main(["key", name, "--file", str(file)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("tandem key: a key's name has no spaces")
    assert printed.err.count("\n") == 1
    assert not file.exists()
