"""Speakers of live sessions: labels at once, bounded state, one clustering at the end."""

from __future__ import annotations

import asyncio
import threading

import numpy as np

from gateway.audio.types import Samples
from gateway.speakers.clustering import ClusterConfig
from gateway.speakers.diarize import DiarizationConfig
from gateway.speakers.groups import Similarities
from gateway.speakers.online import LiveSpeakers, OnlineConfig, OnlineTracker
from gateway.speakers.types import SegmentEmbeddings
from tests.unit.gateway.speakers.voices import conversation, sentence, speakers, windows


def test_sentences_get_the_right_speaker_at_once() -> None:
    parts, who = conversation(speakers(4), sentences=60)
    tracker = OnlineTracker()
    labels = [[turn.speaker for turn in tracker.add(part)] for part in parts]
    assert labels == [[speaker] for speaker in who]
    assert [[turn.speaker for turn in turns] for turns in tracker.finish()] == labels


def test_a_sentence_of_two_speakers_has_two_turns() -> None:
    voices = speakers(2)
    tracker = OnlineTracker()
    tracker.add(sentence(windows(voices, np.zeros(8, dtype=np.int64)), 0.0))
    turns = tracker.add(sentence(windows(voices, np.repeat([0, 1], 6), seed=5), 10.0))
    assert [turn.speaker for turn in turns] == [0, 1]
    assert (turns[0].start, turns[0].end, turns[1].end) == (10.0, turns[1].start, 10.0 + 11 * 0.75 + 1.5)


def test_the_end_corrects_what_was_guessed_early() -> None:
    voices = speakers(3)
    tracker = OnlineTracker(num_speakers=2)
    order = [0, 1, 0, 1, 0, 1]
    for index, speaker in enumerate(order):
        labels = np.full(6, speaker, dtype=np.int64)
        tracker.add(sentence(windows(voices, labels, seed=index), 10.0 * index))
    # A wrong provisional label: both voices known, and a third one that must be one of them.
    turns = tracker.add(sentence(windows(voices, np.full(2, 2), seed=99), 60.0))
    assert {turn.speaker for turn in turns} <= {0, 1}
    final = tracker.finish()
    assert [turns[0].speaker for turns in final[:6]] == order


def test_history_is_bounded_and_still_good_enough() -> None:
    parts, who = conversation(speakers(3), sentences=200)
    tracker = OnlineTracker(config=OnlineConfig(history_windows=300))
    provisional = [tracker.add(part)[0].speaker for part in parts]
    held = sum(len(part.embeddings) for part in tracker._history)
    assert sum(len(part.embeddings) for part in parts) > 1000 and held <= 300 + len(parts[-1].embeddings)
    final = [turns[0].speaker for turns in tracker.finish()]
    assert provisional == who
    assert np.mean([a == b for a, b in zip(final, who, strict=True)]) > 0.98


def test_sentences_without_a_voice_keep_the_last_speaker() -> None:
    voices = speakers(2)
    tracker = OnlineTracker()
    empty = SegmentEmbeddings(9.0, 9.5, np.zeros((0, 192), np.float32), np.zeros(0), np.zeros(0))
    assert [turn.speaker for turn in tracker.add(empty)] == [0]
    tracker.add(sentence(windows(voices, np.zeros(5, dtype=np.int64)), 10.0))
    tracker.add(sentence(windows(voices, np.ones(5, dtype=np.int64)), 20.0))
    assert [turn.speaker for turn in tracker.add(empty)] == [1]
    assert [len(turns) for turns in tracker.finish()] == [0, 1, 1, 0]
    assert OnlineTracker().finish() == ()


async def test_live_speakers_by_the_index_of_finals() -> None:
    voices = speakers(2)
    asked: list[int] = []

    async def voice_of(samples: Samples) -> SegmentEmbeddings:
        asked.append(len(samples))
        labels = np.full(6, int(samples[0]), dtype=np.int64)
        return sentence(windows(voices, labels, seed=len(asked)), 0.0)

    live = LiveSpeakers(voice_of)
    given = {}
    for index, speaker in ((0, 1), (2, 0), (3, 1), (7, 0)):
        voice = await live.embed(np.full(16000, speaker, dtype=np.float32))
        given[index] = live.assign(index, index * 10.0, index * 10.0 + 5.0, voice)
    speakers_by_index = {index: [turn.label for turn in turns] for index, turns in given.items()}
    assert speakers_by_index == {0: ["SPK0"], 2: ["SPK1"], 3: ["SPK0"], 7: ["SPK1"]}
    assert live.assign(8, 80.0, 81.0, None) == ()
    assert await live.finish() == given


async def test_the_session_is_clustered_at_its_end_while_the_event_loop_goes_on() -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Paused(ClusterConfig):
        """Clustering goes on when it is told to."""

        def floor(self, seconds: Similarities) -> float:
            begun.set()
            assert go_on.wait(5), "nothing else ran while the session was clustered"
            return super().floor(seconds)

    async def voice_of(samples: Samples) -> SegmentEmbeddings:
        raise AssertionError

    voices, order = speakers(2), (0, 1, 0)
    said = [sentence(windows(voices, np.full(6, who), seed=at), 0.0) for at, who in enumerate(order)]
    live = LiveSpeakers(voice_of, config=OnlineConfig(diarization=DiarizationConfig(Paused())))
    given = {at: live.assign(at, 10.0 * at, 10.0 * at + 5, said[at]) for at in range(2)}
    finishing = asyncio.create_task(live.finish())
    assert await asyncio.to_thread(begun.wait, 5)
    # The clustering takes no notice of what is said meanwhile.
    late = live.assign(2, 20.0, 25.0, said[2])
    assert [turn.speaker for turn in late] == [0]
    go_on.set()
    assert await finishing == given
    assert await live.finish() == {**given, 2: late}
