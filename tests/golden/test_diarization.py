"""Speakers of real recordings with real weights: FSMN-VAD segments, CAM++ windows, clustering."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from benchmarks.der import SpokenTurn
from benchmarks.diarization import Recording, load, score, voices
from encoder_service.speaker import SpeakerEmbedder, load_speaker_model
from gateway.speakers.diarize import diarize
from gateway.speakers.online import OnlineTracker
from gateway.speakers.types import SegmentEmbeddings
from gateway.vad.fsmn import FsmnVad
from gateway.vad.segmenter import segment
from tests.support.recordings import speaker_weights, vad_weights


@cache
def prepared(name: str) -> tuple[Recording, list[SegmentEmbeddings]]:
    found = load(name, FsmnVad(vad_weights()))
    return found, voices(embedder(), found)


@cache
def embedder() -> SpeakerEmbedder:
    return SpeakerEmbedder(load_speaker_model(speaker_weights()), torch.device("cpu"))


def excerpt(name: str, start: float, end: float) -> tuple[Recording, list[SegmentEmbeddings]]:
    """A part of a recording, cut into speech anew."""
    whole, _ = prepared(name)
    samples = whole.samples[int(start * 16000) : int(end * 16000)]
    turns = tuple(
        SpokenTurn(turn.speaker, max(turn.start, start) - start, min(turn.end, end) - start)
        for turn in whole.turns
        if turn.end > start and turn.start < end
    )
    part = replace(
        whole, samples=samples, turns=turns, segments=tuple(segment(FsmnVad(vad_weights()), samples))
    )
    return part, voices(embedder(), part)


@pytest.mark.parametrize(("name", "speakers"), [("dialogue_2spk", 2), ("meeting_4spk", 4)])
@pytest.mark.parametrize("given", [False, True])
def test_every_speaker_is_found_with_few_errors(name: str, speakers: int, given: bool) -> None:
    found, embeddings = prepared(name)
    result = diarize(embeddings, speakers if given else None)
    error = score(found, result)
    assert result.num_speakers == error.found_speakers == error.reference_speakers == speakers
    assert error.rate < 0.06
    assert error.confused / error.scored < 0.01


@pytest.mark.parametrize(
    ("name", "start", "end", "speakers"),
    [
        ("dialogue_2spk", 9.5, 21.5, 2),
        ("dialogue_2spk", 30.0, 44.0, 2),
        ("dialogue_2spk", 0.0, 9.0, 1),
        ("meeting_4spk", 34.0, 70.0, 1),
        ("meeting_4spk", 192.0, 211.0, 1),
        ("meeting_4spk", 2.0, 3.9, 1),
    ],
)
def test_short_recordings(name: str, start: float, end: float, speakers: int) -> None:
    found, embeddings = excerpt(name, start, end)
    assert len({turn.speaker for turn in found.turns}) == speakers
    assert diarize(embeddings).num_speakers == speakers


def test_speakers_are_numbered_as_they_appear_and_turns_do_not_overlap() -> None:
    _, embeddings = prepared("meeting_4spk")
    turns = diarize(embeddings).turns
    assert list(dict.fromkeys(turn.label for turn in turns)) == ["SPK0", "SPK1", "SPK2", "SPK3"]
    assert all(first.end <= second.start for first, second in itertools.pairwise(turns))
    assert diarize(embeddings).turns == turns


@pytest.mark.parametrize(("name", "speakers"), [("dialogue_2spk", 2), ("meeting_4spk", 4)])
def test_live_labels_are_right_at_once_and_stay(name: str, speakers: int) -> None:
    found, embeddings = prepared(name)
    tracker = OnlineTracker()
    provisional = [turn for sentence in embeddings for turn in tracker.add(sentence)]
    final = [turn for sentence in tracker.finish() for turn in sentence]
    for turns, most in ((provisional, 0.08), (final, 0.06)):
        result = replace(diarize(embeddings), turns=tuple(turns))
        assert result.num_speakers == speakers
        assert score(found, result).rate < most
    assert np.mean([first == second for first, second in zip(provisional, final, strict=False)]) > 0.8
