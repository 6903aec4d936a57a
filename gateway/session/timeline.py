"""CTC text of a running segment on the time line, so that windows and decodes can be put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.text.clean import clean_transcript
from gateway.text.ctc_tokenizer import CtcTokenizer
from tandem.script import is_unspaced

# Between two passes a token moves by two CTC frames at most, and they are joined where they agree on one
# within this distance from where both are good.
_JITTER = 2 * 960
_JOIN_WITHIN = 8_000


@dataclass(frozen=True, slots=True)
class CtcPiece:
    """The bytes of one CTC token and the sample where it is heard."""

    data: bytes
    at: int


def ctc_pieces(
    token_ids: Sequence[int], frames: Sequence[int], tokenizer: CtcTokenizer, start: int, frame_samples: int
) -> tuple[CtcPiece, ...]:
    """Tokens that begin at CTC frames of audio which begins at sample `start`."""
    return tuple(
        CtcPiece(tokenizer.token_bytes(token), start + frame * frame_samples)
        for token, frame in zip(token_ids, frames, strict=True)
    )


def _text(pieces: Sequence[CtcPiece]) -> str:
    joined = b"".join(piece.data for piece in pieces)
    return clean_transcript(joined.decode("utf-8", errors="ignore"))


class CtcTimeline:
    """What the CTC branch has heard of one utterance so far.

    A pass that begins inside the utterance lacks its left context for the first `context` samples.
    """

    def __init__(self, start: int, context: int) -> None:
        self._start, self._context = start, context
        self._pieces: list[CtcPiece] = []

    def merge(self, pieces: Sequence[CtcPiece], window_start: int) -> None:
        """A pass over [window_start, now): it replaces what it covers with enough context."""
        if window_start <= self._start:
            self._pieces = list(pieces)
            return
        sure = window_start + self._context
        before, after = self._agreed(pieces, sure) or (
            sum(piece.at < sure for piece in self._pieces),
            sum(piece.at < sure for piece in pieces),
        )
        self._pieces = [*self._pieces[:before], *pieces[after:]]

    def _agreed(self, pieces: Sequence[CtcPiece], sure: int) -> tuple[int, int] | None:
        """How many pieces of before and of now lead to the token nearest to `sure` that is in both."""
        pairs = (
            (abs(old.at - sure), before, after)
            for before, old in enumerate(self._pieces, 1)
            if abs(old.at - sure) <= _JOIN_WITHIN
            for after, new in enumerate(pieces, 1)
            if new.data == old.data and abs(new.at - old.at) <= _JITTER
        )
        nearest = min(pairs, default=None)
        return None if nearest is None else nearest[1:]

    def text(self) -> str:
        return _text(self._pieces)

    def tail(self, position: int) -> str:
        """Whole words heard from sample `position` on."""
        later = [piece for piece in self._pieces if piece.at >= position]
        for index, piece in enumerate(later):
            first = piece.data.decode("utf-8", errors="ignore")[:1]
            if first and (first.isspace() or is_unspaced(first)):
                return _text(later[index:])
        return ""
