"""Subtitles as a reader and as a player see them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import pairwise

import pytest

from tandem.cues import SubtitleStyle, cues
from tandem.results import Segment, Transcript, Word
from tandem.subtitles import to_srt, to_tsv, to_vtt

ENGLISH = (
    "The quick brown fox jumps over the lazy dog, and then it goes home to rest. After that, nothing much "
    "happened until the next morning when the sun rose above the hills. It was a fine day."
)
CHINESE = (
    "我一直没有照顾孩子，但是我想要抚养权。今天天气很好，我们一起去公园散步吧，然后再去吃一顿丰盛的晚餐，"
    "最后回家睡觉，明天还要上班呢。"
)


def spoken(text: str, pattern: str, seconds_each: float = 0.3, start: float = 0.0) -> Segment:
    """A segment whose words are spoken one after the other."""
    words = [
        Word(match.group(), start + i * seconds_each, start + (i + 1) * seconds_each - 0.05, 1.0)
        for i, match in enumerate(re.finditer(pattern, text))
    ]
    return Segment(text, start, words[-1].end, tuple(words))


def transcript(*segments: Segment) -> Transcript:
    return Transcript("".join(s.text for s in segments), segments, segments[-1].end if segments else 0.0)


def columns(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def words_of(lines: Sequence[str]) -> str:
    return "".join("".join(lines).split())


@pytest.mark.parametrize(
    "segment",
    [
        spoken(ENGLISH, r"\w+"),
        spoken(CHINESE, r"\w"),
        Segment(ENGLISH, 3.0, 14.0),
        Segment(CHINESE, 3.0, 20.0),
    ],
    ids=["english", "chinese", "english without times", "chinese without times"],
)
def test_cues_are_narrow_short_in_order_and_complete(segment: Segment) -> None:
    found = cues(transcript(segment))
    assert all(len(cue.lines) <= 2 and max(map(columns, cue.lines)) <= 42 for cue in found)
    assert all(0 < cue.end - cue.start <= 7.0 for cue in found)
    assert all(left.end <= right.start for left, right in pairwise(found))
    assert words_of([line for cue in found for line in cue.lines]) == words_of([segment.text])
    assert found[0].start == pytest.approx(segment.start)
    assert found[-1].end == pytest.approx(segment.end)


def test_cues_end_with_a_sentence_or_clause_where_one_ends() -> None:
    endings = [cue.lines[-1][-1] for cue in cues(transcript(spoken(CHINESE, r"\w")))]
    assert set(endings) <= set("，。")
    first = cues(transcript(spoken(ENGLISH, r"\w+")))[0]
    assert first.lines == ("The quick brown fox jumps over the lazy", "dog, and then it goes home to rest.")


def test_a_cue_shows_when_its_words_are_spoken() -> None:
    segment = spoken(ENGLISH, r"\w+")
    starts = {round(word.start, 6) for word in segment.words}
    assert {round(cue.start, 6) for cue in cues(transcript(segment))} <= starts


def test_a_pause_inside_a_segment_clears_the_screen() -> None:
    words = (Word("yes", 0.0, 0.3, 1.0), Word("no", 9.0, 9.3, 1.0))
    first, second = cues(transcript(Segment("Yes. No.".lower(), 0.0, 9.3, words)))
    assert (first.lines, second.lines) == (("yes.",), ("no.",))
    assert first.end == pytest.approx(0.7)
    assert second.start == 9.0


def test_no_cue_stays_into_the_next_one() -> None:
    first, second = cues(transcript(Segment("Hm.", 1.0, 1.2), Segment("Well.", 1.5, 1.6)))
    assert first.end == 1.5
    assert second.end == pytest.approx(2.2)


def test_srt_numbers_cues_and_counts_the_speaker_into_the_line() -> None:
    segment = Segment("Good morning & welcome.", 3661.5, 3663.0, speaker="SPK1")
    assert to_srt(transcript(segment)) == "1\n01:01:01,500 --> 01:01:03,000\nSPK1: Good morning & welcome.\n"
    long = Segment(ENGLISH, 0.0, 14.0, speaker="SPK1")
    assert max(len(line) for line in to_srt(transcript(long)).splitlines()) <= 42


def test_vtt_escapes_text_and_names_the_voice() -> None:
    segment = Segment("a < b & c --> d", 0.0, 2.0, speaker="SPK0")
    assert to_vtt(transcript(segment)) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:02.000\n<v SPK0>a &lt; b &amp; c --&gt; d\n"
    )


def test_tsv_has_one_row_per_segment() -> None:
    rows = to_tsv(transcript(Segment("one\ttwo", 0.5, 1.25), Segment("three", 2.0, 3.0)))
    assert rows == "start\tend\ttext\n500\t1250\tone two\n2000\t3000\tthree\n"


def test_words_that_are_not_in_the_text_do_not_lose_it() -> None:
    words = (Word("other", 0.0, 0.3, 1.0),)
    (cue,) = cues(transcript(Segment("the text", 0.0, 2.0, words)))
    assert cue.lines == ("the text",)


def test_one_word_longer_than_a_line_is_shown_whole() -> None:
    (cue,) = cues(transcript(Segment("x" * 60, 0.0, 2.0)), SubtitleStyle(max_columns=20))
    assert cue.lines == ("x" * 60,)


def test_silence_gives_empty_subtitles() -> None:
    assert to_srt(transcript()) == ""
    assert to_vtt(transcript()) == "WEBVTT\n"
