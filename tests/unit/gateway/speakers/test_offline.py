"""Speakers of whole recordings: voices of all channels together, segments by those of their own channel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gateway.speakers.offline import name_speakers
from gateway.speakers.types import FloatArray, SegmentEmbeddings
from tandem.results import Segment, Word
from tests.unit.gateway.speakers.voices import sentence, speakers, windows

VOICES = speakers(3)


def spoken(channel: int, start: float, end: float) -> Segment:
    """A segment with a word for every second."""
    words = tuple(Word(f"w{at}", start + at, start + at + 0.8, 0.9) for at in range(int(end - start)))
    return Segment(" ".join(word.text for word in words), start, end, words, channel=channel)


def heard(segment: Segment, *who: int) -> SegmentEmbeddings:
    """The voices of a segment, each for the same share of it, in its channel."""
    count = int((segment.end - segment.start - 1.5) / 0.75) + 1
    labels = np.repeat(who, -(-count // len(who)))[:count]
    embeddings: FloatArray = windows(VOICES, labels, seed=int(10 * segment.start) + segment.channel)
    found = sentence(embeddings, segment.start)
    return replace(found, end=segment.end, channel=segment.channel)


async def test_people_who_talk_over_each_other_in_two_channels_keep_their_segments_whole() -> None:
    call = [spoken(1, 0, 12), spoken(2, 3, 9), spoken(1, 14, 20), spoken(2, 15, 24)]
    voices = [heard(segment, segment.channel - 1) for segment in call]
    labelled, _ = await name_speakers(call, voices, None)
    assert labelled == tuple(replace(part, speaker=f"SPK{part.channel - 1}") for part in call)


async def test_somebody_who_is_heard_in_two_channels_is_one_speaker() -> None:
    call = [spoken(1, 0, 12), spoken(2, 3, 9), spoken(2, 14, 20)]
    voices = [heard(call[0], 0), heard(call[1], 1), heard(call[2], 0)]
    labelled, _ = await name_speakers(call, voices, None)
    assert [part.speaker for part in labelled] == ["SPK0", "SPK1", "SPK0"]


async def test_channels_that_hold_the_same_have_the_same_speakers() -> None:
    left = [spoken(1, 0, 12), spoken(1, 14, 20)]
    voices = [heard(left[0], 0), heard(left[1], 1)]
    call = [replace(part, channel=channel) for part in left for channel in (1, 2)]
    both = [replace(voice, channel=channel) for voice in voices for channel in (1, 2)]
    labelled, _ = await name_speakers(call, both, None)
    assert [part.speaker for part in labelled] == ["SPK0", "SPK0", "SPK1", "SPK1"]


async def test_a_segment_of_two_people_is_cut_where_they_change_in_its_own_channel() -> None:
    call = [spoken(1, 0, 12), spoken(2, 1, 13)]
    labelled, _ = await name_speakers(call, [heard(call[0], 0, 1), heard(call[1], 2)], None)
    assert [(part.channel, part.speaker) for part in labelled] == [(1, "SPK0"), (1, "SPK1"), (2, "SPK2")]
    assert labelled[0].words + labelled[1].words == call[0].words
    assert labelled[2] == replace(call[1], speaker="SPK2")


async def test_a_channel_without_voices_gets_no_speaker_of_another_one() -> None:
    call = [spoken(1, 0, 12), spoken(2, 3, 4)]
    labelled, _ = await name_speakers(call, [heard(call[0], 0)], None)
    assert [part.speaker for part in labelled] == ["SPK0", None]
