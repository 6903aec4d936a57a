"""Speakers of transcribed segments, which are cut between words where the speaker changes."""

from __future__ import annotations

import bisect
import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

from gateway.speakers.types import Turn, speaker_label
from tandem.results import Segment, Word

# How far a change of speaker may move to a pause between words: windows are longer than pauses.
_SNAP_SECONDS = 0.75
# Turns shorter than this are not worth a segment of their own.
_MIN_TURN_SECONDS = 0.4
_OPENING = "\"'“‘([{（《「『【¿¡"


def label_segments(
    segments: Sequence[Segment], turns: Sequence[Turn], *, min_turn: float = _MIN_TURN_SECONDS
) -> tuple[Segment, ...]:
    """Segments with speakers, in the same order; each channel's `turns` in order of time, not overlapping.

    A segment hears the turns of its own channel: those of another may overlap it and say nothing about it.
    One that holds several speakers is cut at words and keeps its text, character for character but for
    the space at the cuts. Without word times it gets the speaker who talks longest in it. Where nobody talks
    the speaker of the nearest turn is taken. Turns of less than `min_turn` seconds get no part of their own.
    Ids and CTC text of a cut segment stay with its first part.
    """
    channels: defaultdict[int, list[Turn]] = defaultdict(list)
    for turn in turns:
        channels[turn.channel].append(turn)
    labelled: list[Segment] = []
    for segment in segments:
        heard = _heard(segment, channels[segment.channel])
        labelled += _label(segment, heard, min_turn) if heard else [segment]
    return tuple(labelled)


def _heard(segment: Segment, turns: list[Turn]) -> list[Turn]:
    """The turns in a segment, clipped to it; the nearest one where nobody talks, none where there is none."""
    first = bisect.bisect_right(turns, segment.start, key=attrgetter("end"))
    behind = bisect.bisect_left(turns, segment.end, key=attrgetter("start"))
    if first < behind:
        return [_clip(turn, segment) for turn in turns[first:behind]]
    around = turns[max(0, first - 1) : first + 1]
    if not around:
        return []
    return [min(around, key=lambda turn: max(turn.start - segment.end, segment.start - turn.end))]


def _clip(turn: Turn, segment: Segment) -> Turn:
    return replace(turn, start=max(turn.start, segment.start), end=min(turn.end, segment.end))


def _label(segment: Segment, turns: list[Turn], min_turn: float) -> list[Segment]:
    long = [turn for turn in turns if turn.end - turn.start >= min_turn]
    if len({turn.speaker for turn in long}) > 1 and segment.words:
        return _cut(segment, long)
    totals: dict[int, float] = {}
    for turn in turns:
        totals[turn.speaker] = totals.get(turn.speaker, 0.0) + turn.end - turn.start
    return [replace(segment, speaker=speaker_label(max(totals, key=lambda speaker: totals[speaker])))]


@dataclass(frozen=True, slots=True)
class _Part:
    """Words [first, end) of a segment, all by one speaker."""

    speaker: int
    first: int
    end: int


def _cut(segment: Segment, turns: list[Turn]) -> list[Segment]:
    parts = _parts(segment.words, turns)
    offsets = _offsets(segment.text, segment.words)
    pieces = []
    for index, part in enumerate(parts):
        words = segment.words[part.first : part.end]
        last = index == len(parts) - 1
        low = 0 if index == 0 else offsets[part.first]
        high = len(segment.text) if last else offsets[part.end]
        piece = replace(
            segment,
            text=segment.text[low:high].strip(),
            start=segment.start if index == 0 else words[0].start,
            end=segment.end if last else words[-1].end,
            words=words,
            speaker=speaker_label(part.speaker),
        )
        if index:
            piece = replace(piece, prompt_token_ids=(), token_ids=(), ctc_text=None)
        pieces.append(piece)
    return pieces


def _parts(words: Sequence[Word], turns: list[Turn]) -> list[_Part]:
    """Words shared out between the turns; a change falls into the longest pause close to it."""
    cuts = [0]
    for before, after in itertools.pairwise(turns):
        cuts.append(max(cuts[-1], _best_cut(words, (before.end + after.start) / 2)))
    cuts.append(len(words))
    parts: list[_Part] = []
    for turn, (first, end) in zip(turns, itertools.pairwise(cuts), strict=True):
        if first == end:
            continue
        if parts and parts[-1].speaker == turn.speaker:
            parts[-1] = _Part(turn.speaker, parts[-1].first, end)
        else:
            parts.append(_Part(turn.speaker, first, end))
    return parts


def _best_cut(words: Sequence[Word], time: float) -> int:
    """Index of the first word after a change of speaker at about `time`."""
    plain = sum(1 for word in words if (word.start + word.end) / 2 < time)
    best, longest = plain, 0.0
    for index in range(1, len(words)):
        pause = words[index].start - words[index - 1].end
        middle = (words[index].start + words[index - 1].end) / 2
        distance = abs(middle - time)
        # A pause farther away must be longer to win.
        if distance <= _SNAP_SECONDS and pause - distance / 4 > longest:
            best, longest = index, pause - distance / 4
    return best


def _offsets(text: str, words: Sequence[Word]) -> list[int]:
    """Where each word starts in the text, with what opens before it."""
    offsets: list[int] = []
    at = 0
    for word in words:
        found = text.find(word.text, at)
        start = found if found >= 0 else at
        at = start + len(word.text) if found >= 0 else at
        while start > 0 and text[start - 1] in _OPENING and start - 1 >= (offsets[-1] if offsets else 0):
            start -= 1
        offsets.append(start)
    return offsets
