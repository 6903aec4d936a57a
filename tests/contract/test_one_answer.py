"""Whatever protocol a recording comes by: the same words, times and speakers."""

from __future__ import annotations

import pytest

from tandem.script import join_texts
from tests.support.answers import (
    PROTOCOLS,
    Answer,
    grpc_blocking,
    openai_speakers,
    openai_texts,
    with_letters,
)
from tests.support.http import HttpStack
from tests.support.recordings import recording_path

RECORDINGS = ["english_9s.wav", "dialogue_2spk.flac"]


@pytest.fixture
def services(demo_services: HttpStack) -> HttpStack:
    return demo_services


@pytest.fixture(scope="module")
def expected(demo_services: HttpStack) -> dict[tuple[str, bool], Answer]:
    """The answers of gRPC by recording and whether speakers were asked for: all others must equal them."""
    return {
        (name, speakers): grpc_blocking(demo_services, recording_path(name), speakers)
        for name in RECORDINGS
        for speakers in (False, True)
    }


@pytest.mark.parametrize("protocol", [name for name in PROTOCOLS if name != "grpc"])
@pytest.mark.parametrize("name", RECORDINGS)
@pytest.mark.parametrize("speakers", [False, True], ids=["plain", "speakers"])
def test_words_times_and_speakers_are_those_of_grpc(
    services: HttpStack, expected: dict[tuple[str, bool], Answer], name: str, protocol: str, speakers: bool
) -> None:
    answer = PROTOCOLS[protocol](services, recording_path(name), speakers)
    assert answer == expected[name, speakers]
    assert answer


@pytest.mark.parametrize("name", RECORDINGS)
def test_formats_without_times_hold_the_same_text(
    services: HttpStack, expected: dict[tuple[str, bool], Answer], name: str
) -> None:
    text = join_texts(segment.text for segment in expected[name, False])
    texts = openai_texts(services, recording_path(name))
    assert texts == dict.fromkeys(texts, text)


@pytest.mark.parametrize("name", RECORDINGS)
def test_diarized_json_holds_the_same_turns(
    services: HttpStack, expected: dict[tuple[str, bool], Answer], name: str
) -> None:
    turns = openai_speakers(services, recording_path(name))
    assert turns == with_letters(expected[name, True])
