"""Processor time of what the gateway does with an answered segment, step by step, on one thread.

Segments are made up: texts of words of a published-size vocabulary (60,515 tokens), English-like and Chinese,
and posteriors that know most of them. Run it as

    python -m benchmarks.word_times [--seconds 10 30 60]
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.vocabularies import CTC_VOCABULARY, ctc_ranks, words
from gateway.align.words import FRAME_SECONDS, WordAligner
from gateway.text.clean import clean_transcript
from gateway.text.ctc_text import greedy_text, has_speech
from gateway.text.ctc_tokenizer import CtcTokenizer
from gateway.text.posteriors import CtcPosteriors, TokenLogProbs
from gateway.text.repetition import collapse_repetitions

TOP_K = 16
SEGMENTS = 20
ROUNDS = 5
_WORDS_PER_SECOND = 2.5
_CHARACTERS_PER_SECOND = 4.5
_MISHEARD = 0.04


@dataclass(frozen=True)
class Segment:
    """A text, compact posteriors that hold most of it, and exact log probabilities of its tokens."""

    text: str
    posteriors: CtcPosteriors
    exact: TokenLogProbs


def segments(tokenizer: CtcTokenizer, aligner: WordAligner, seconds: float) -> Iterator[Segment]:
    """Half of them in invented Latin words, half in Chinese characters."""
    rng = np.random.default_rng(0)
    known = list(itertools.islice(words(), 20_000))
    latin = [word for word in known if word.startswith(" ")]
    characters = [word for word in known if not word.startswith(" ")]
    for index in range(SEGMENTS):
        if index % 2:
            text = "".join(rng.choice(characters, round(seconds * _CHARACTERS_PER_SECOND)))
        else:
            said = rng.choice(latin, round(seconds * _WORDS_PER_SECOND))
            text = "".join(word + "," * (place % 8 == 7) for place, word in enumerate(said)).strip() + "."
        posteriors = made_up(tokenizer.encode(text), round(seconds / FRAME_SECONDS), rng)
        ids = aligner.align(text, posteriors).unsure
        columns = rng.normal(-12, 3, (posteriors.num_frames, len(ids))).astype(np.float32)
        yield Segment(text, posteriors, TokenLogProbs(ids, columns, posteriors.blank))


def made_up(tokens: list[int], num_frames: int, rng: np.random.Generator) -> CtcPosteriors:
    """Peaks of two frames at random places, blanks between them, and some tokens not among the best."""
    ids = rng.integers(0, CTC_VOCABULARY - 2_000, (num_frames, TOP_K)).astype(np.int32)
    log_probs = -12 - np.sort(rng.exponential(3, (num_frames, TOP_K)), axis=1).astype(np.float32)
    blank = np.full(num_frames, -0.02, dtype=np.float32)
    peaks = np.sort(rng.choice(np.arange(1, num_frames), len(tokens), replace=False))
    for peak, token in zip(peaks, tokens, strict=True):
        if rng.random() > _MISHEARD:
            ids[peak - 1 : peak + 1, 0] = token
            log_probs[peak - 1 : peak + 1, 0] = (-3.0, -0.05)
            blank[peak] = -4.0
    remainder = np.full(num_frames, -9, dtype=np.float32)
    return CtcPosteriors(ids, log_probs, blank, remainder, CTC_VOCABULARY, CTC_VOCABULARY - 1)


def steps(tokenizer: CtcTokenizer, aligner: WordAligner) -> dict[str, Callable[[Segment], object]]:
    """What is done with each segment."""

    def refined(segment: Segment) -> object:
        aligned = aligner.align(segment.text, segment.posteriors)
        return aligner.refine(aligned, segment.exact) if len(aligned.unsure) else aligned

    return {
        "clean-up, loops": lambda s: collapse_repetitions(clean_transcript(s.text)),
        "text of CTC": lambda s: greedy_text(s.posteriors, tokenizer),
        "speech or not": lambda s: has_speech(s.posteriors, tokenizer),
        "word times": lambda s: aligner.align(s.text, s.posteriors),
        "word times, anew where unsure": refined,
    }


def cost(step: Callable[[Segment], object], over: list[Segment]) -> float:
    """Seconds for all segments: the least of some rounds."""
    rounds = []
    for _ in range(ROUNDS):
        began = time.thread_time()
        for segment in over:
            step(segment)
        rounds.append(time.thread_time() - began)
    return min(rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, nargs="+", default=[10.0, 30.0, 60.0])
    lengths = parser.parse_args().seconds
    tokenizer = CtcTokenizer(ctc_ranks(), CTC_VOCABULARY)
    aligner = WordAligner(tokenizer)
    batches = [list(segments(tokenizer, aligner, seconds)) for seconds in lengths]
    print("microseconds per second of audio in segments of")
    print(f"{'':<32}" + "".join(f"{f'{seconds:g} s':>9}" for seconds in lengths))
    for name, step in steps(tokenizer, aligner).items():
        figures = [
            cost(step, batch) / (SEGMENTS * seconds) for batch, seconds in zip(batches, lengths, strict=True)
        ]
        print(f"{name:<32}" + "".join(f"{1e6 * figure:>9.1f}" for figure in figures))


if __name__ == "__main__":
    main()
