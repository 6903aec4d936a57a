"""Writes the training sentences, one a line: real text first cleaned, then the grammar's, no two alike.

    python -m training.texts --tts DIR --out FILE [--held-out FILE] [--seed N]

Needs `wordfreq` (frequency ranks); fetch_tts.py fetches the sources and the lexicon.
"""

from __future__ import annotations

import argparse
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from .text.clean import clean, key
from .text.grammar import Grammar
from .text.sources import READERS
from .text.vocabulary import load

CAPS = {"chitchat": 140_000, "wordnet": 45_000, "austen": 26_000, "fortunes": 11_000}
CARRIERS = (
    "How do you spell {}?",
    "What does {} mean in this sentence?",
    "She wrote the word {} on the board.",
    "The next word on the list is {}.",
    "I have never heard the word {} before.",
    "He looked up {} in the dictionary.",
    "Can you use {} in a sentence?",
    "The answer to the puzzle was {}.",
    "They kept talking about {} all evening.",
)


def vocabulary(lexicon: Path, ranks: list[str]) -> frozenset[str]:
    """Words a training sentence may hold: pronounceable ones plus the grammar's names and numbers."""
    grammar = Grammar(0)
    own = {
        w for words in grammar.lists.values() for word in words for w in re.findall(r"[a-z']+", word.lower())
    }
    return load(lexicon, ranks) | own | set("abcdefghijklmnopqrstuvwxyz") | {"o'clock", "am", "pm"}


def frequent_words(count: int) -> list[str]:
    """English word forms, most frequent first."""
    import wordfreq

    return [w for w in wordfreq.top_n_list("en", count) if re.fullmatch(r"[a-z]+(?:'[a-z]+)?", w)]


def real_sentences(sources: Path, words: frozenset[str], seen: set[str], seed: int) -> Iterator[str]:
    """Cleaned sentences of every reader, at most CAPS of each, chosen at random."""
    for name, reader in READERS.items():
        kept = []
        for raw in reader(sources):
            sentence = clean(raw, words)
            if sentence is not None and key(sentence) not in seen:
                seen.add(key(sentence))
                kept.append(sentence)
        random.Random(seed).shuffle(kept)
        yield from kept[: CAPS[name]]


def grammar_sentences(count: int, words: frozenset[str], seen: set[str], seed: int) -> Iterator[str]:
    grammar = Grammar(seed)
    while count > 0:
        sentence = clean(grammar.sentence(), words, high=30)
        if sentence is not None and key(sentence) not in seen:
            seen.add(key(sentence))
            count -= 1
            yield sentence


def rare_word_sentences(
    have: Iterable[str], ranks: list[str], words: frozenset[str], seen: set[str], wanted: int = 3
) -> Iterator[str]:
    """Carrier sentences so that each of the most frequent words occurs `wanted` times."""
    count = Counter(w for sentence in have for w in key(sentence).split())
    for word in ranks:
        if word not in words or len(word) < 3:
            continue
        for k in range(max(0, wanted - count[word])):
            sentence = clean(CARRIERS[(k * 4 + len(word)) % len(CARRIERS)].format(word), words)
            if sentence is not None and key(sentence) not in seen:
                seen.add(key(sentence))
                yield sentence


def pairs(sentences: list[str], count: int, seed: int) -> Iterator[str]:
    """Two or three short sentences as one utterance of at most 35 words."""
    rng = random.Random(seed)
    short = [s for s in sentences if len(s.split()) <= 14]
    while count > 0:
        joined = " ".join(rng.sample(short, rng.choice((2, 2, 2, 3))))
        if len(joined.split()) <= 35:
            count -= 1
            yield joined


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--tts", type=Path, required=True, help="folder that fetch_tts.py filled")
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--held-out", type=Path, help="eval.tsv; its sentences stay out of training")
    p.add_argument("--grammar", type=int, default=70_000)
    p.add_argument("--pairs", type=int, default=25_000)
    p.add_argument("--seed", type=int, default=0)
    options = p.parse_args()
    ranks = frequent_words(120_000)
    words = vocabulary(options.tts / "hibari" / "assets", ranks)
    held = options.held_out.read_text("utf-8").splitlines() if options.held_out else []
    held = [line.split("\t")[-1] for line in held]
    seen = {key(line) for line in held}
    sentences = list(real_sentences(options.tts / "sources", words, seen, options.seed))
    sentences += grammar_sentences(options.grammar, words, seen, options.seed)
    sentences += rare_word_sentences(sentences, ranks[:20_000], words, seen)
    sentences += pairs(sentences, options.pairs, options.seed)
    random.Random(options.seed).shuffle(sentences)
    options.out.write_text("\n".join(sentences) + "\n", "utf-8")
    count = Counter(w for sentence in sentences for w in key(sentence).split())
    covered = [sum(count[w] >= 3 for w in ranks[:n] if w in words) / n for n in (5_000, 10_000, 20_000)]
    mean = sum(count.values()) / len(sentences)
    print(f"{len(sentences)} sentences, {mean:.1f} words each, {len(count)} word forms")
    print(f"of the top 5, 10, 20 thousand words {', '.join(f'{c:.1%}' for c in covered)} occur 3 times")


if __name__ == "__main__":
    main()
