"""The Node client against real services: compiled here, run as its users would."""

from __future__ import annotations

from pathlib import Path

import pytest

from tandem.launcher import Stack
from tandem.live_events import Final
from tandem.results import Transcript
from tests.clients import contract
from tests.clients.programs import Program, example


@pytest.fixture(scope="module")
def recognize() -> Program:
    return example("node", "recognize")


@pytest.fixture(scope="module")
def live() -> Program:
    return example("node", "live")


@pytest.fixture(scope="module")
def batch() -> Program:
    return example("node", "batch")


def test_one_call(recognize: Program, services: Stack, heard: Transcript) -> None:
    contract.one_call_gives_what_python_gets(recognize, services.address, heard)


def test_a_batch(batch: Program, services: Stack, heard: Transcript, tmp_path: Path) -> None:
    contract.a_batch_gives_what_one_call_gives(batch, services.address, heard, tmp_path)


def test_a_refused_batch(batch: Program, services: Stack) -> None:
    contract.a_batch_that_is_refused_says_why(batch, services.address)


def test_errors(recognize: Program, services: Stack, tmp_path: Path) -> None:
    contract.bad_audio_is_a_typed_error(recognize, services.address, tmp_path)


def test_deadline(recognize: Program, services: Stack) -> None:
    contract.a_deadline_ends_the_call(recognize, services.address)


def test_dead_server(recognize: Program) -> None:
    contract.a_dead_server_is_an_error_and_no_hang(recognize)


def test_lost_connections(live: Program, services: Stack, heard_live: list[Final]) -> None:
    contract.lost_connections_lose_no_word(live, services.address, heard_live)
