"""The Go client against real services: compiled here, run as its users would."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tandem.launcher import Stack
from tandem.live_events import Final
from tandem.results import Transcript
from tests.clients import contract, programs


@pytest.fixture(scope="module")
def folder() -> Path:
    return programs.build("go")


@pytest.fixture
def recognize(folder: Path) -> contract.Program:
    return _program(folder / "build" / "bin" / "recognize")


@pytest.fixture
def live(folder: Path) -> contract.Program:
    return _program(folder / "build" / "bin" / "live")


def _program(path: Path) -> contract.Program:
    def command(flags: Sequence[str]) -> list[str]:
        return [str(path), *flags]

    return command


def test_one_call(recognize: contract.Program, services: Stack, heard: Transcript) -> None:
    contract.one_call_gives_what_python_gets(recognize, services.address, heard)


def test_errors(recognize: contract.Program, services: Stack, tmp_path: Path) -> None:
    contract.bad_audio_is_a_typed_error(recognize, services.address, tmp_path)


def test_deadline(recognize: contract.Program, services: Stack) -> None:
    contract.a_deadline_ends_the_call(recognize, services.address)


def test_dead_server(recognize: contract.Program) -> None:
    contract.a_dead_server_is_an_error_and_no_hang(recognize)


def test_lost_connections(live: contract.Program, services: Stack, heard_live: list[Final]) -> None:
    contract.lost_connections_lose_no_word(live, services.address, heard_live)
