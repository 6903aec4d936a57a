"""What the CTC branch alone hears: the cheap partial text, and whether there is speech at all."""

from __future__ import annotations

from gateway.text.clean import clean_transcript
from gateway.text.ctc_tokenizer import CtcTokenizer
from gateway.text.posteriors import CtcPosteriors


def greedy_text(posteriors: CtcPosteriors, tokenizer: CtcTokenizer) -> str:
    """Text of the best path, cleaned as transcripts are."""
    return clean_transcript(tokenizer.decode(posteriors.greedy_ids()))


def has_speech(posteriors: CtcPosteriors, tokenizer: CtcTokenizer) -> bool:
    """Whether the best path holds any text token: without one, hotwords would only be hallucinated."""
    return any(token_id < tokenizer.num_text_tokens for token_id in posteriors.greedy_ids())
