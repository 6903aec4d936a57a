"""Times and scores per Chinese character or English word, from CTC posteriors.

Punctuation takes no frames: its tokens are left out of the alignment, so that a comma before a long
pause neither moves the word before it nor the one after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.align.emissions import blank_or_silent, compact_emissions
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
    """L tokens to align, int64 [L]; token i covers bytes [begins[i], ends[i]), less leading space.

    lows and highs [W]: the bytes that each unit of the text begins and ends at.
    """

    ids: IntArray
    begins: IntArray
    ends: IntArray
    lows: IntArray
    highs: IntArray


@dataclass(frozen=True, slots=True)
class WordPlan:
    """A text to align, its units, and how it may be spelt in tokens."""

    text: str
    units: IntArray
    """First character and end of each unit, [W, 2]."""
    spellings: list[_Spelling]

    @property
    def token_ids(self) -> NDArray[np.int64]:
        """What `align` needs log probabilities of: distinct ids, ascending."""
        return np.unique(np.concatenate([spelling.ids for spelling in self.spellings]))


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

    def plan(self, text: str) -> WordPlan | None:
        """What is to be aligned; None for a text without letters and digits.

        Raises AlignmentError when the vocabulary cannot spell the text.
        """
        units = np.array(text_units(text), dtype=np.int64)
        if not len(units):
            return None
        variants = dict.fromkeys((text, _lower(text)))
        return WordPlan(text, units, [self._spell(variant, units) for variant in variants])

    def align(
        self, plan: WordPlan, posteriors: CtcPosteriors, exact: TokenLogProbs | None = None
    ) -> list[AlignedWord]:
        """Words of the plan's text in order, by `exact` log probabilities of its tokens where there are some.

        Raises AlignmentError when the segment is too short for the text. Nothing is ever guessed.
        """
        found = compact_emissions(posteriors, plan.token_ids) if exact is None else exact
        blank = blank_or_silent(found.blank, posteriors, self._silent)
        emissions = TokenLogProbs(found.ids, found.columns, blank)
        spelling = _best_supported(plan.spellings, emissions)
        return self._words(plan, spelling, forced_align(emissions, spelling.ids))

    def _spell(self, text: str, units: IntArray) -> _Spelling:
        byte_at = _byte_positions(text)
        lows, highs = byte_at[units].T
        ids = np.array(self._tokenizer.encode(text), dtype=np.int64)
        ends = np.cumsum(self._lengths[ids])
        begins = ends - self._lengths[ids] + self._spaced[ids]
        # A token says something if the first unit that ends behind its begin begins before its end.
        unit = np.searchsorted(highs, begins, side="right")
        kept = ~self._silent[ids] & (unit < len(units))
        kept &= lows[np.minimum(unit, len(units) - 1)] < ends
        if not kept.any() or ends[-1] != byte_at[-1]:
            raise AlignmentError(_UNSPELT)
        return _Spelling(ids[kept], begins[kept], ends[kept], lows, highs)

    def _words(self, plan: WordPlan, spelling: _Spelling, spans: TokenSpans) -> list[AlignedWord]:
        first = np.searchsorted(spelling.ends, spelling.lows, side="right")
        last = np.searchsorted(spelling.begins, spelling.highs, side="left")
        if (first >= last).any():
            raise AlignmentError(_UNSPELT)
        summed = np.concatenate(([0.0], np.cumsum(spans.scores)))
        scores = (summed[last] - summed[first]) / (last - first)
        starts = self._times(spelling, spans, first, spelling.lows)
        ends = self._times(spelling, spans, last - 1, spelling.highs)
        begins, stops = plan.units.T.tolist()
        texts = [plan.text[begin:stop] for begin, stop in zip(begins, stops, strict=True)]
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
