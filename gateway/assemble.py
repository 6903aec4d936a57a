"""From the tiers' answer for one span to a segment of the transcript: text, word times, details."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.align.viterbi import AlignmentError
from gateway.align.words import AlignedText, AlignedWord
from gateway.audio.types import SAMPLE_RATE
from gateway.backends.segment_call import SegmentRequest, SegmentResult, TokenIds
from gateway.model import ServedModel
from gateway.prepare import Span
from gateway.text.clean import clean_transcript
from gateway.text.ctc_text import greedy_text
from gateway.text.posteriors import CtcPosteriors
from gateway.text.repetition import collapse_repetitions
from tandem.results import RecognizeOptions, Segment, Word

log = logging.getLogger("tandem.gateway.assemble")


@dataclass(slots=True)
class _Draft:
    """What some tokens say, and once it `is_aligned`, where its words lie by compact posteriors."""

    token_ids: TokenIds
    text: str
    ctc_text: str | None
    aligned: AlignedText | None = None
    is_aligned: bool = False


class SegmentWriter:
    """Writes the segment of one span, in two steps, so that the encoder can be asked for what is unsure.

    Both are done at once, on the event loop: they take a millisecond for ten seconds of speech and hold the
    interpreter, so a thread of their own would only add waiting for it. `previous_text` is the confirmed text
    that the answer continues.
    """

    def __init__(
        self, model: ServedModel, span: Span, options: RecognizeOptions, previous_text: str, request_id: str
    ) -> None:
        self._model, self._span, self._options = model, span, options
        self._previous_text, self._request_id = previous_text, request_id
        self._draft: _Draft | None = None
        self.seconds = 0.0
        """Spent writing."""

    def name_targets(self, token_ids: TokenIds, posteriors: CtcPosteriors) -> NDArray[np.int64]:
        """The tokens whose exact log probabilities the word times depend on; none where they are sure."""
        draft = self._aligned(self._drafted(token_ids, posteriors), posteriors)
        return draft.aligned.unsure if draft.aligned is not None else np.empty(0, dtype=np.int64)

    def draft(self, result: SegmentResult) -> Segment:
        """The segment's text and times, without what takes longer to find."""
        text, span = self._drafted(result.token_ids, result.posteriors).text, self._span
        return Segment(text, span.start / SAMPLE_RATE, span.end / SAMPLE_RATE, channel=span.channel)

    def write(self, request: SegmentRequest, result: SegmentResult) -> Segment:
        """The segment, with times from the start of the recording."""
        draft = self._aligned(self._drafted(result.token_ids, result.posteriors), result.posteriors)
        span, details, began = self._span, self._options.details, time.perf_counter()
        segment = Segment(
            text=draft.text,
            start=span.start / SAMPLE_RATE,
            end=span.end / SAMPLE_RATE,
            words=self._timed(draft.aligned, result),
            channel=span.channel,
            prompt_token_ids=tuple(request.prompt.token_ids(result.num_embeds)) if details else (),
            token_ids=result.token_ids if details else (),
            ctc_text=draft.ctc_text if details else None,
        )
        self.seconds += time.perf_counter() - began
        return segment

    def _drafted(self, token_ids: TokenIds, posteriors: CtcPosteriors | None) -> _Draft:
        """The draft of these tokens; the last one, if it was of these."""
        if self._draft is None or self._draft.token_ids != token_ids:
            began = time.perf_counter()
            self._draft = self._new_draft(token_ids, posteriors)
            self.seconds += time.perf_counter() - began
        return self._draft

    def _new_draft(self, token_ids: TokenIds, posteriors: CtcPosteriors | None) -> _Draft:
        model, ctc_text = self._model, None
        if model.ctc_tokenizer is not None and posteriors is not None:
            ctc_text = greedy_text(posteriors, model.ctc_tokenizer)
        text = clean_transcript(self._previous_text + model.detokenizer.decode(token_ids))
        text = collapse_repetitions(text, ctc_text, settled=len(self._previous_text))
        return _Draft(token_ids, text, ctc_text)

    def _aligned(self, draft: _Draft, posteriors: CtcPosteriors | None) -> _Draft:
        """The draft, aligned once."""
        if not draft.is_aligned:
            began = time.perf_counter()
            draft.aligned, draft.is_aligned = self._alignment(draft.text, posteriors), True
            self.seconds += time.perf_counter() - began
        return draft

    def _alignment(self, text: str, posteriors: CtcPosteriors | None) -> AlignedText | None:
        """None, never guesses, when the words cannot be aligned."""
        aligner = self._model.aligner
        if not self._options.word_times or aligner is None or posteriors is None:
            return None
        try:
            return aligner.align(text, posteriors)
        except AlignmentError as error:
            log.warning("request %s: no word times: %s", self._request_id, error)
            return None

    def _timed(self, aligned: AlignedText | None, result: SegmentResult) -> tuple[Word, ...]:
        if aligned is None:
            return ()
        words, offset = aligned.words, self._span.start / SAMPLE_RATE
        if result.targets is not None and self._model.aligner is not None:
            words = self._model.aligner.refine(aligned, result.targets)
        return tuple(_moved(word, offset) for word in words)


def _moved(word: AlignedWord, offset: float) -> Word:
    """The word with times from the start of the recording."""
    return Word(word.text, round(word.start + offset, 3), round(word.end + offset, 3), round(word.score, 3))
