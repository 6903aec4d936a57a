"""Times and scores per Chinese character or English word, from CTC posteriors.

Punctuation takes no frames: its tokens are left out of the alignment, so that a comma before a long
pause neither moves the word before it nor the one after it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.align.emissions import all_seen, compact_blank, compact_emissions, exact_blank, written_silent
from gateway.align.viterbi import AlignmentError, TokenSpans, forced_align
from gateway.text.ctc_tokenizer import CtcTokenizer
from gateway.text.posteriors import CtcPosteriors, TokenLogProbs
from gateway.text.units import text_units

# A low-frame-rate frame of the published models: 6 fbank frames of 10 ms.
FRAME_SECONDS = 0.06
# First characters that take two, three and four bytes in UTF-8.
_LONGER_FROM = np.array([0x80, 0x800, 0x10000], dtype=np.uint32)
_UNSPELT = "the vocabulary cannot spell the text"

IntArray = NDArray[np.int64]
_NO_TOKENS: IntArray = np.empty(0, dtype=np.int64)


class AlignedWord(NamedTuple):
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
class _Spelling:
    """How a text of W units is said in L tokens.

    units [W, 2]: first character and end of each. ids, begins, ends [L]: token i covers bytes
    [begins[i], ends[i]), less leading space. lows and highs [W]: the bytes that each unit begins and ends at.
    """

    text: str
    units: IntArray
    ids: IntArray
    begins: IntArray
    ends: IntArray
    lows: IntArray
    highs: IntArray


@dataclass(frozen=True, slots=True)
class AlignedText:
    """Words of a text in order, none for a text without letters and digits.

    Where a token lies where it is not among the frame's best K, its probability there, and so its place, are
    estimates. Then `unsure` names the tokens, distinct and ascending, whose exact log probabilities tell.
    """

    words: list[AlignedWord]
    unsure: IntArray
    _spelling: _Spelling | None = None


class WordAligner:
    """Aligns texts with the CTC vocabulary of one checkpoint."""

    def __init__(self, tokenizer: CtcTokenizer, frame_seconds: float = FRAME_SECONDS) -> None:
        self._tokenizer = tokenizer
        self._frame_seconds = frame_seconds
        pieces = [tokenizer.token_bytes(token_id) for token_id in range(tokenizer.vocab_size)]
        self._lengths = np.array([len(piece) for piece in pieces])
        self._spaced = np.array([piece.startswith(b" ") for piece in pieces])
        self._silent = np.array([not _is_heard(piece) for piece in pieces])
        self._silent[tokenizer.blank_id] = False

    def align(self, text: str, posteriors: CtcPosteriors) -> AlignedText:
        """The text's words by compact posteriors.

        Raises AlignmentError when the segment is too short for the text, or the vocabulary cannot spell it.
        """
        units = np.array(text_units(text), dtype=np.int64)
        if not len(units):
            return AlignedText([], _NO_TOKENS)
        spellings = [self._spell(text, units, variant) for variant in dict.fromkeys((text, _lower(text)))]
        found = compact_emissions(posteriors, np.concatenate([spelling.ids for spelling in spellings]))
        spelling = _best_supported(spellings, found)
        blank = compact_blank(posteriors, self._silent)
        spans = forced_align(replace(found, blank=blank), spelling.ids)
        unsure = _NO_TOKENS
        if not all_seen(posteriors, spelling.ids, spans):
            unsure = np.union1d(spelling.ids, written_silent(posteriors, self._silent))
        return AlignedText(self._words(spelling, spans), unsure, spelling)

    def refine(self, aligned: AlignedText, exact: TokenLogProbs) -> list[AlignedWord]:
        """The words anew, by exact log probabilities of the `unsure` tokens."""
        spelling = aligned._spelling
        if spelling is None:
            return []
        blank = exact_blank(exact, self._silent)
        return self._words(spelling, forced_align(replace(exact, blank=blank), spelling.ids))

    def _spell(self, text: str, units: IntArray, variant: str) -> _Spelling:
        """In the tokens of a variant of the text that has the same characters in another case."""
        byte_at = _byte_positions(variant)
        lows, highs = byte_at[units].T
        ids = np.array(self._tokenizer.encode(variant), dtype=np.int64)
        ends = np.cumsum(self._lengths[ids])
        begins = ends - self._lengths[ids] + self._spaced[ids]
        # A token says something if the first unit that ends behind its begin begins before its end.
        unit = np.searchsorted(highs, begins, side="right")
        kept = ~self._silent[ids] & (unit < len(units))
        kept &= lows[np.minimum(unit, len(units) - 1)] < ends
        if not kept.any() or ends[-1] != byte_at[-1]:
            raise AlignmentError(_UNSPELT)
        return _Spelling(text, units, ids[kept], begins[kept], ends[kept], lows, highs)

    def _words(self, spelling: _Spelling, spans: TokenSpans) -> list[AlignedWord]:
        first = np.searchsorted(spelling.ends, spelling.lows, side="right")
        last = np.searchsorted(spelling.begins, spelling.highs, side="left")
        if (first >= last).any():
            raise AlignmentError(_UNSPELT)
        summed = np.concatenate(([0.0], np.cumsum(spans.scores)))
        scores = (summed[last] - summed[first]) / (last - first)
        starts = self._times(spelling, spans, first, spelling.lows)
        ends = self._times(spelling, spans, last - 1, spelling.highs)
        begins, stops = spelling.units.T.tolist()
        texts = [spelling.text[begin:stop] for begin, stop in zip(begins, stops, strict=True)]
        return list(map(AlignedWord, texts, starts.tolist(), ends.tolist(), scores.tolist(), begins, stops))

    def _times(
        self, spelling: _Spelling, spans: TokenSpans, token: IntArray, byte: IntArray
    ) -> NDArray[np.float64]:
        """When each byte of the text is reached; inside a token of several units, in proportion."""
        begin, end, start = spelling.begins[token], spelling.ends[token], spans.starts[token]
        share = np.clip((byte - begin) / (end - begin), 0.0, 1.0)
        times: NDArray[np.float64] = (start + share * (spans.ends[token] - start)) * self._frame_seconds
        return times.round(3)


def _is_heard(piece: bytes) -> bool:
    # Bytes of a split character are speech; they decode to U+FFFD, which is no letter.
    return any(char.isalnum() or char == "\ufffd" for char in piece.decode("utf-8", errors="replace"))


def _byte_positions(text: str) -> IntArray:
    """Where each character begins in the text's bytes, and where the last one ends; int64 [n + 1]."""
    codes = np.frombuffer(text.encode("utf-32-le", errors="replace"), dtype="<u4")
    sizes = np.searchsorted(_LONGER_FROM, codes, side="right") + 1
    return np.concatenate(([0], np.cumsum(sizes)))


def _lower(text: str) -> str:
    """Lower case, character for character: CTC branches are often trained without case."""
    lower = text.lower()
    if len(lower) == len(text):
        return lower
    return "".join(char.lower() if len(char.lower()) == 1 else char for char in text)


def _best_supported(spellings: list[_Spelling], emissions: TokenLogProbs) -> _Spelling:
    """The spelling that the frames know best: by its tokens' mean of their best log probability."""
    if len(spellings) == 1:
        return spellings[0]
    best = emissions.columns.max(axis=0)
    return max(spellings, key=lambda spelling: best[np.searchsorted(emissions.ids, spelling.ids)].mean())
