"""What hotwords do: a missed word named among four wrong ones; five wrong ones on sentences heard right.

python -m training.hotwords MODEL_DIR EVAL      (EVAL as `training.make_eval speak` writes it)
"""

from __future__ import annotations

import argparse
import random
import re
from pathlib import Path

import torch

from training.evaluate import Recogniser, clips
from training.score import word_error

MIN_LETTERS = 3
MIN_LETTERS_OF_OTHERS = 5


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("source", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    recogniser, rng = Recogniser(args.model), random.Random(args.seed)
    heard = [
        (samples, words(said), words(recogniser(samples, [])[1]))
        for _, samples, said, _ in clips(args.source)
    ]
    lexicon = sorted({word for _, said, _ in heard for word in said if len(word) >= MIN_LETTERS_OF_OTHERS})

    def others(said: list[str], count: int) -> list[str]:
        return rng.sample([word for word in lexicon if word not in said], count)

    missed = brought_back = 0
    for samples, said, got in heard:
        if lost := [word for word in said if word not in got and len(word) >= MIN_LETTERS]:
            wanted = max(lost, key=len)
            listed = [*others(said, 4), wanted]
            rng.shuffle(listed)
            missed += 1
            brought_back += wanted in words(recogniser(samples, listed)[1])
    print(f"{brought_back} of {missed} sentences with a missed word get it back")
    right = [(samples, said) for samples, said, got in heard if said == got]
    pairs, read_out = [], 0
    for samples, said in right:
        listed = others(said, 5)
        got = words(recogniser(samples, listed)[1])
        pairs.append((" ".join(said), " ".join(got)))
        read_out += any(word in got for word in listed)
    total = sum(len(said) for _, said in right)
    wrong = word_error(pairs) * total
    print(f"wrong hotwords in {len(right)} right sentences: {wrong:.0f} of {total} words wrong")
    print(f"sentences with a wrong hotword read out: {read_out}")


if __name__ == "__main__":
    main()
