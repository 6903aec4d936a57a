"""Labels of transcribed segments: cut between words, text kept, nothing invented without word times."""

from __future__ import annotations

import itertools

from gateway.speakers.labels import label_segments
from gateway.speakers.types import Turn
from tandem.results import Segment, Word


def english() -> Segment:
    """Two speakers without a pause between segments: the second begins at 2.1 s."""
    times = [("Are", 1.0, 1.2), ("you", 1.2, 1.4), ("there", 1.4, 1.9), ("Yes", 2.2, 2.5), ("I", 2.6, 2.7)]
    times += [("am", 2.7, 3.0)]
    words = tuple(Word(text, start, end, 0.9) for text, start, end in times)
    return Segment("Are you there? “Yes, I am.”", 0.9, 3.1, words, token_ids=(1, 2), ctc_text="are you")


def test_a_segment_of_one_speaker_keeps_its_shape() -> None:
    segment = english()
    (labelled,) = label_segments([segment], [Turn(0, 0.5, 4.0), Turn(1, 4.0, 9.0)])
    assert labelled.speaker == "SPK0"
    assert (labelled.text, labelled.words, labelled.token_ids) == (segment.text, segment.words, (1, 2))


def test_a_segment_is_cut_between_words_in_the_pause_near_the_change() -> None:
    for change in (1.7, 2.05, 2.5):
        first, second = label_segments([english()], [Turn(0, 0.9, change), Turn(1, change, 3.1)])
        assert (first.text, first.speaker, first.start, first.end) == ("Are you there?", "SPK0", 0.9, 1.9)
        assert (second.text, second.speaker, second.start, second.end) == ("“Yes, I am.”", "SPK1", 2.2, 3.1)
        assert [word.text for word in second.words] == ["Yes", "I", "am"]
        assert (first.token_ids, first.ctc_text) == ((1, 2), "are you")
        assert (second.token_ids, second.ctc_text) == ((), None)


def test_chinese_is_cut_between_characters() -> None:
    words = tuple(Word(char, 0.5 * i, 0.5 * i + 0.4, 0.9) for i, char in enumerate("你好我在"))
    segment = Segment("你好。我在。", 0.0, 2.0, words)
    parts = label_segments([segment], [Turn(1, 0.0, 1.0), Turn(0, 1.0, 2.0)])
    assert [(part.text, part.speaker) for part in parts] == [("你好。", "SPK1"), ("我在。", "SPK0")]


def test_without_word_times_the_longest_speaker_gets_the_whole_segment() -> None:
    segment = Segment("Are you there? Yes.", 1.0, 4.0)
    turns = [Turn(2, 1.0, 2.0), Turn(1, 2.0, 3.2), Turn(2, 3.2, 4.0)]
    (labelled,) = label_segments([segment], turns)
    assert (labelled.speaker, labelled.text) == ("SPK2", segment.text)


def test_very_short_turns_cut_nothing() -> None:
    turns = [Turn(0, 0.9, 2.0), Turn(1, 2.0, 2.3), Turn(0, 2.3, 3.1)]
    (labelled,) = label_segments([english()], turns)
    assert labelled.speaker == "SPK0"


def test_a_turn_without_words_makes_no_empty_segment() -> None:
    turns = [Turn(1, 0.0, 0.9), Turn(0, 0.9, 3.1)]
    (labelled,) = label_segments([Segment("Are you there?", 0.0, 3.1, english().words[:3])], turns)
    assert labelled.speaker == "SPK0"


def test_speech_outside_all_turns_belongs_to_the_nearest() -> None:
    turns = [Turn(0, 0.0, 2.0), Turn(1, 8.0, 9.0)]
    segments = [Segment("a", 2.5, 3.0), Segment("b", 7.0, 7.5), Segment("c", 20.0, 21.0)]
    assert [part.speaker for part in label_segments(segments, turns)] == ["SPK0", "SPK1", "SPK1"]
    assert label_segments(segments, []) == tuple(segments)


def test_no_words_are_lost_or_doubled() -> None:
    words = tuple(Word(f"w{i}", i * 0.3, i * 0.3 + 0.25, 1.0) for i in range(100))
    segment = Segment(" ".join(word.text for word in words) + ".", 0.0, 30.0, words)
    turns = [Turn(i % 3, i * 1.7, (i + 1) * 1.7) for i in range(18)]
    parts = label_segments([segment], turns)
    assert len(parts) > 10
    assert tuple(word for part in parts for word in part.words) == words
    assert " ".join(part.text for part in parts) == segment.text
    assert all(part.end <= after.start for part, after in itertools.pairwise(parts))
