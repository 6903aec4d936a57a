"""From the tiers' answer for one span to a segment of the transcript: text, word times, details."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from gateway.align.viterbi import AlignmentError
from gateway.align.words import WordAligner
from gateway.audio.types import SAMPLE_RATE
from gateway.backends.encoder import SegmentRequest, SegmentResult
from gateway.model import ServedModel
from gateway.prepare import Span
from gateway.text.clean import clean_transcript
from gateway.text.ctc_text import greedy_text
from gateway.text.posteriors import CtcPosteriors
from gateway.text.repetition import collapse_repetitions
from tandem.results import RecognizeOptions, Segment, Word

log = logging.getLogger("tandem.gateway.assemble")


@dataclass(frozen=True, slots=True)
class Heard:
    """What came back for one span. `previous_text` is the confirmed text that the answer continues."""

    span: Span
    request: SegmentRequest
    result: SegmentResult
    previous_text: str = ""


def build_segment(model: ServedModel, heard: Heard, options: RecognizeOptions) -> Segment:
    """The segment, with times from the start of the recording. CPU work: call it off the event loop."""
    result, span = heard.result, heard.span
    ctc_text = None
    if model.ctc_tokenizer is not None and result.posteriors is not None:
        ctc_text = greedy_text(result.posteriors, model.ctc_tokenizer)
    text = clean_transcript(heard.previous_text + model.detokenizer.decode(result.token_ids))
    text = collapse_repetitions(text, ctc_text)
    start = span.start / SAMPLE_RATE
    words: tuple[Word, ...] = ()
    if options.word_times and model.aligner is not None and result.posteriors is not None:
        words = align_words(model.aligner, text, result.posteriors, start, heard.request.request_id)
    details = options.details
    return Segment(
        text=text,
        start=start,
        end=span.end / SAMPLE_RATE,
        words=words,
        channel=span.channel,
        prompt_token_ids=tuple(heard.request.prompt.token_ids(result.num_embeds)) if details else (),
        token_ids=result.token_ids if details else (),
        ctc_text=ctc_text if details else None,
    )


def align_words(
    aligner: WordAligner, text: str, posteriors: CtcPosteriors, offset: float, request_id: str
) -> tuple[Word, ...]:
    """Words with times from the start of the recording; none, never guesses, when they cannot be aligned."""
    try:
        plan = aligner.plan(text)
        aligned = aligner.align(plan, posteriors) if plan is not None else []
    except AlignmentError as error:
        log.warning("request %s: no word times: %s", request_id, error)
        return ()
    return tuple(
        Word(word.text, round(word.start + offset, 3), round(word.end + offset, 3), round(word.score, 3))
        for word in aligned
    )
