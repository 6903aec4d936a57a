"""CTC text of a running segment on the time line, so that windows and decodes can be put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.text.clean import clean_transcript
from gateway.text.ctc_tokenizer import CtcTokenizer
from tandem.script import is_unspaced

# A window's first second lacks its left context: older text is kept for it.
_CONTEXT_SAMPLES = 16_000


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
    """What the CTC branch has heard of one utterance so far."""

    def __init__(self, start: int) -> None:
        self._start = start
        self._pieces: list[CtcPiece] = []

    def merge(self, pieces: Sequence[CtcPiece], window_start: int) -> None:
        """A pass over [window_start, now): it replaces what it covers with enough context."""
        whole = window_start <= self._start
        sure = window_start if whole else window_start + _CONTEXT_SAMPLES
        kept = [piece for piece in self._pieces if piece.at < sure and not whole]
        self._pieces = kept + [piece for piece in pieces if piece.at >= sure]

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
