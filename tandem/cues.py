"""Cues out of a transcript: at most two lines on screen, cut where a reader expects it."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tandem.results import Segment, Transcript

_SENTENCE_END = frozenset(".!?…。！？｡")
_CLAUSE_END = frozenset(",;:—，、；：､")
_CLOSING = frozenset("\"'”’)]}»」』）】》")


@dataclass(frozen=True, slots=True)
class SubtitleStyle:
    """Bounds of a cue. A column is one Latin letter; a Chinese character takes two. Times are seconds."""

    max_columns: int = 42
    max_lines: int = 2
    max_duration: float = 7.0
    min_duration: float = 0.7
    """Shorter cues stay longer, never into the next one."""
    max_pause: float = 1.5
    """A longer pause between two words ends the cue."""


@dataclass(frozen=True, slots=True)
class Cue:
    """Lines that are on screen from start to end, in seconds."""

    start: float
    end: float
    lines: tuple[str, ...]
    speaker: str | None = None


@dataclass(frozen=True, slots=True)
class _Piece:
    """A word with the punctuation and blanks after it, and when it is spoken."""

    text: str
    start: float
    end: float

    @property
    def columns(self) -> int:
        return _columns(self.text)


def cues(transcript: Transcript, style: SubtitleStyle | None = None) -> list[Cue]:
    """The cues of a transcript in order, none longer than the style allows where words can be parted.

    Word times are used where the transcript has them. Where it has none, times within a segment are
    shared out by length of text: an estimate, which subtitles cannot do without.
    """
    style = style or SubtitleStyle()
    found = [cue for segment in transcript.segments for cue in _segment_cues(segment, style)]
    for index, cue in enumerate(found):
        wanted = max(cue.end, cue.start + style.min_duration)
        if index + 1 < len(found) and found[index + 1].start > cue.start:
            wanted = min(wanted, found[index + 1].start)
        found[index] = replace(cue, end=wanted)
    return found


def _segment_cues(segment: Segment, style: SubtitleStyle) -> Iterator[Cue]:
    pieces = _timed_pieces(segment) or _estimated_pieces(segment)
    for part in _parts(pieces, style):
        lines = _lines(part, style) or [_joined(part)]
        yield Cue(part[0].start, part[-1].end, tuple(lines), segment.speaker)


def _timed_pieces(segment: Segment) -> list[_Piece]:
    """The segment's text cut before each word that has times; empty when text and words differ."""
    text, starts, position = plain(segment.text), [], 0
    for word in segment.words:
        found = text.find(word.text, position)
        if found < 0:
            return []
        starts.append(found)
        position = found + len(word.text)
    bounds = [0, *starts[1:], len(text)]
    return [
        _Piece(text[bounds[i] : bounds[i + 1]], word.start, word.end) for i, word in enumerate(segment.words)
    ]


def _estimated_pieces(segment: Segment) -> list[_Piece]:
    text, atoms = plain(segment.text), [""]
    for char in text:
        # A piece ends after a blank and around wide characters; punctuation stays with what it follows.
        previous = atoms[-1][-1:]
        starts_new = previous.isspace() or ((_is_wide(char) or _is_wide(previous)) and _is_word(char))
        if starts_new and atoms[-1]:
            atoms.append("")
        atoms[-1] += char
    total = max(1, _columns(text))
    pieces, done = [], 0
    for atom in atoms if text else []:
        start = segment.start + (segment.end - segment.start) * done / total
        done += _columns(atom)
        pieces.append(_Piece(atom, start, segment.start + (segment.end - segment.start) * done / total))
    return pieces


def _parts(pieces: list[_Piece], style: SubtitleStyle) -> Iterator[list[_Piece]]:
    """Consecutive pieces, one list per cue."""
    first = 0
    while first < len(pieces):
        end = _longest(pieces, first, style)
        pause = end < len(pieces) and pieces[end].start - pieces[end - 1].end > style.max_pause
        if end < len(pieces) and not pause:
            end = _best_end(pieces, first, end, style)
        yield pieces[first:end]
        first = end


def _longest(pieces: list[_Piece], first: int, style: SubtitleStyle) -> int:
    """The end of the longest cue that starts at `first`; at least one piece."""
    end = first + 1
    while end < len(pieces):
        pause = pieces[end].start - pieces[end - 1].end
        if pause > style.max_pause or pieces[end].end - pieces[first].start > style.max_duration:
            break
        if _lines(pieces[first : end + 1], style) is None:
            break
        end += 1
    return end


def _best_end(pieces: list[_Piece], first: int, longest: int, style: SubtitleStyle) -> int:
    """Where to cut: after a sentence, else a clause, else a word, and not too early.

    What is left for the last cue is kept in balance, so that no single word stands alone.
    """
    widths = [piece.columns for piece in pieces[first:]]
    full, total = sum(widths[: longest - first]), sum(widths)
    last_two = total <= 2 * full

    def rating(end: int) -> float:
        left = sum(widths[: end - first])
        if left < 0.35 * full:
            return -1.0
        closeness = -abs(total - 2 * left) if last_two else left
        return _cut_quality(pieces[end - 1].text, pieces[end].text) * 1000 + closeness

    return max(range(first + 1, longest + 1), key=rating)


def _cut_quality(left: str, right: str) -> int:
    """3 after a sentence, 2 after a clause, 1 between words, 0 inside one."""
    ending = left.rstrip()
    while len(ending) > 1 and ending[-1] in _CLOSING:
        ending = ending[:-1]
    if ending[-1:] in _SENTENCE_END:
        return 3
    if ending[-1:] in _CLAUSE_END:
        return 2
    return int(left[-1:].isspace() or _is_wide(left[-1:]) or _is_wide(right[:1]))


def _lines(pieces: Sequence[_Piece], style: SubtitleStyle) -> list[str] | None:
    """The text in at most max_lines lines, the most even way; None when it does not fit."""
    text = _joined(pieces)
    if _columns(text) <= style.max_columns:
        return [text]
    if style.max_lines < 2 or _columns(text) > style.max_lines * style.max_columns:
        return None
    best: tuple[float, list[str]] | None = None
    for cut in range(1, len(pieces)):
        quality = _cut_quality(pieces[cut - 1].text, pieces[cut].text)
        head = _joined(pieces[:cut])
        if not quality or _columns(head) > style.max_columns:
            continue
        rest = _lines(pieces[cut:], replace(style, max_lines=style.max_lines - 1))
        if rest is None:
            continue
        cost = abs(_columns(head) - max(map(_columns, rest))) - 4 * quality
        if best is None or cost < best[0]:
            best = cost, [head, *rest]
    return best[1] if best else None


def plain(text: str) -> str:
    """The text in one line, without control characters."""
    return " ".join("".join(" " if unicodedata.category(char) == "Cc" else char for char in text).split())


def _joined(pieces: Sequence[_Piece]) -> str:
    return "".join(piece.text for piece in pieces).strip()


def _columns(text: str) -> int:
    return sum(0 if unicodedata.combining(char) else 1 + _is_wide(char) for char in text)


def _is_wide(char: str) -> bool:
    return char != "" and unicodedata.east_asian_width(char) in "WF"


def _is_word(char: str) -> bool:
    return unicodedata.category(char)[0] in "LN"
