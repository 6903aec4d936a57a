"""Times and scores per Chinese character or English word, from compact CTC posteriors.

Punctuation takes no frames: its tokens are left out of the alignment, so that a comma before a long
pause neither moves the word before it nor the one after it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.align.emissions import compact_emissions
from gateway.align.viterbi import AlignmentError, TokenSpan, forced_align
from gateway.text.ctc_tokenizer import CtcTokenizer
from gateway.text.posteriors import CtcPosteriors
from gateway.text.units import TextUnit, text_units

# A low-frame-rate frame of the published models: 6 fbank frames of 10 ms.
FRAME_SECONDS = 0.06


@dataclass(frozen=True, slots=True)
class AlignedWord:
    """One unit of text with its times in seconds from the start of the segment.

    text has no punctuation around it; text[start_char:end_char] of the segment's text is this unit.
    score is between 0 and 1: the mean over its tokens of the best probability each one reaches.
    """

    text: str
    start: float
    end: float
    score: float
    start_char: int
    end_char: int


@dataclass(frozen=True, slots=True)
class _Targets:
    """Tokens to align; token i covers bytes [begins[i], ends[i]) of the text, less leading space."""

    ids: NDArray[np.int64]
    begins: list[int]
    ends: list[int]
    byte_at: list[int]


class WordAligner:
    """Aligns texts with the CTC vocabulary of one checkpoint."""

    def __init__(self, tokenizer: CtcTokenizer, frame_seconds: float = FRAME_SECONDS) -> None:
        self._tokenizer = tokenizer
        self._frame_seconds = frame_seconds
        self._silent = np.array([self._is_silent(i) for i in range(tokenizer.vocab_size)])

    def align(self, text: str, posteriors: CtcPosteriors) -> list[AlignedWord]:
        """Words of `text` in order; empty for a text without letters and digits.

        Raises AlignmentError when the segment is too short for the text. Nothing is ever guessed.
        """
        units = text_units(text)
        if not units:
            return []
        variants = [self._targets(variant, units) for variant in dict.fromkeys((text, _lower(text)))]
        targets, (tokens, blank) = max(
            ((variant, compact_emissions(posteriors, variant.ids, self._silent)) for variant in variants),
            key=lambda candidate: _support(candidate[1][0]),
        )
        repeats = np.concatenate(([False], targets.ids[1:] == targets.ids[:-1]))
        spans = forced_align(tokens, blank, repeats)
        return [self._word(text, unit, targets, spans) for unit in units]

    def _is_silent(self, token_id: int) -> bool:
        if token_id == self._tokenizer.blank_id:
            return False
        # Bytes of a split character are speech; they decode to U+FFFD, which is no letter.
        piece = self._tokenizer.token_bytes(token_id).decode("utf-8", errors="replace")
        return not any(char.isalnum() or char == "\ufffd" for char in piece)

    def _targets(self, text: str, units: list[TextUnit]) -> _Targets:
        byte_at = [0]
        for char in text:
            byte_at.append(byte_at[-1] + len(char.encode("utf-8", errors="replace")))
        spoken = np.zeros(byte_at[-1] + 1, dtype=np.bool_)
        for unit in units:
            spoken[byte_at[unit.start] : byte_at[unit.end]] = True
        ids, begins, ends, position = [], [], [], 0
        for token_id in self._tokenizer.encode(text):
            piece = self._tokenizer.token_bytes(token_id)
            begin, position = position + (piece[:1] == b" "), position + len(piece)
            if not self._silent[token_id] and spoken[begin:position].any():
                ids.append(token_id)
                begins.append(begin)
                ends.append(position)
        if position != byte_at[-1]:
            raise AlignmentError("the vocabulary cannot spell the text")
        return _Targets(np.array(ids, dtype=np.int64), begins, ends, byte_at)

    def _word(self, text: str, unit: TextUnit, targets: _Targets, spans: list[TokenSpan]) -> AlignedWord:
        low, high = targets.byte_at[unit.start], targets.byte_at[unit.end]
        first = int(np.searchsorted(targets.ends, low, side="right"))
        last = int(np.searchsorted(targets.begins, high, side="left"))
        if first >= last:
            raise AlignmentError("the vocabulary cannot spell the text")
        start = self._time_at(low, targets, spans, first, at_end=False)
        end = self._time_at(high, targets, spans, last - 1, at_end=True)
        score = float(np.mean([span.score for span in spans[first:last]]))
        return AlignedWord(text[unit.start : unit.end], start, end, score, unit.start, unit.end)

    def _time_at(
        self, byte: int, targets: _Targets, spans: list[TokenSpan], index: int, *, at_end: bool
    ) -> float:
        """When `byte` of the text is reached; inside a token of several units, in proportion."""
        begin, end, span = targets.begins[index], targets.ends[index], spans[index]
        whole = byte >= end if at_end else byte <= begin
        share = float(at_end) if whole else (byte - begin) / (end - begin)
        return round((span.start + share * (span.end - span.start)) * self._frame_seconds, 3)


def _lower(text: str) -> str:
    """Lower case, character for character: CTC branches are often trained without case."""
    return "".join(char.lower() if len(char.lower()) == 1 else char for char in text)


def _support(tokens: NDArray[np.float32]) -> float:
    """How well the frames know the targets: mean over tokens of their best log probability."""
    return float(tokens.max(axis=0).mean()) if tokens.size else -np.inf
