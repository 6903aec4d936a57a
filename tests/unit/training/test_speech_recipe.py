"""The parts of the training-speech recipe that can be wrong without anyone hearing it."""

from __future__ import annotations

import math
import random
import re
from pathlib import Path

import pytest
import torch

from training.kokoro_assets import HELD_OUT, load_voices, pack_voices, read_phonemes, write_phonemes
from training.kokoro_torch import _stretch
from training.resample import to_16k
from training.synthesize_gpu import TOTALS
from training.text.clean import clean, key
from training.text.grammar import Grammar
from training.text.spoken_numbers import cardinal, ordinal, speak_numbers

SENTENCE = "we paid dollars and cents for it on may the ninth of five fifty at eight o'clock i'm here"
WORDS = frozenset(SENTENCE.split(" "))


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("It cost $5.50 at 8:00.", "It cost five dollars and fifty cents at eight o'clock."),
        ("In 1999 we sold 1,205.", "In nineteen ninety nine we sold one thousand two hundred and five."),
        ("The 23rd of May, 2007", "The twenty third of May, two thousand and seven"),
        ("About 2.5% of 40", "About two point five percent of forty"),
    ],
)
def test_numerals_are_said_in_words(written: str, said: str) -> None:
    assert speak_numbers(written) == said


def test_cardinals_and_ordinals_are_unique() -> None:
    numbers = [*range(1200), 10_000, 10_001, 999_999, 1_000_000]
    assert len({cardinal(n) for n in numbers}) == len(numbers)
    assert [ordinal(n) for n in (1, 12, 20, 31)] == ["first", "twelfth", "twentieth", "thirty first"]


def test_clean_speaks_and_refuses() -> None:
    assert clean("we paid $5.50 for it", WORDS) == "We paid five dollars and fifty cents for it."
    assert clean("im here at 8:00 -- on the 9th", WORDS) == "I'm here at eight o'clock, on the ninth."
    assert clean("We paid zlotys for it", WORDS) is None
    assert clean("We paid @5 for it", WORDS) is None


def test_grammar_is_seeded_spoken_form() -> None:
    a, b = Grammar(3), Grammar(3)
    lines = [a.sentence() for _ in range(400)]
    assert lines == [b.sentence() for _ in range(400)]
    assert all(re.fullmatch(r"[A-Z][A-Za-z' ,.?!]+[.?!]", line) for line in lines)
    assert len({key(line) for line in lines}) > 350


def test_resampling_keeps_tones_and_removes_what_would_fold() -> None:
    t = torch.arange(24_000, dtype=torch.float64) / 24_000
    low, high = (torch.sin(2 * math.pi * f * t).float()[None] for f in (3_000, 9_500))
    out = to_16k(low)[0, 200:-200]
    want = torch.sin(2 * math.pi * 3_000 * torch.arange(16_000, dtype=torch.float64) / 16_000)[200:-200]
    assert torch.allclose(out.double(), want, atol=1e-3)
    assert float(to_16k(high)[0, 200:-200].abs().max()) < 5e-3


def test_stretching_hits_an_allowed_total_and_keeps_every_token() -> None:
    torch.manual_seed(0)
    seconds = torch.rand(64, 40) * 8 + 0.2
    total = seconds.round().clamp(min=1).sum(1).long()
    frames = _stretch(seconds, total, torch.tensor(TOTALS, dtype=torch.float32))
    assert int(frames.min()) >= 1
    assert set(frames.sum(1).tolist()) <= set(TOTALS)
    assert float((frames.sum(1) - total).abs().max()) <= 16


def test_voices_for_training_leave_the_held_out_ones_out(tmp_path: Path) -> None:
    for name in (*HELD_OUT, "af_heart", "bm_george", "zf_xiaobei"):
        torch.rand(510, 256).numpy().tofile(tmp_path / f"{name}.bin")
    pack_voices(tmp_path, tmp_path / "voices.npz")
    assert set(load_voices(tmp_path / "voices.npz")) == {"af_heart", "bm_george"}


def test_phonemes_survive_packing(tmp_path: Path) -> None:
    rng = random.Random(1)
    rows = [
        (f"Sentence {i}.", [rng.randint(1, 177) for _ in range(rng.randint(3, 90))], i % 3 == 0)
        for i in range(50)
    ]
    assert write_phonemes(tmp_path / "p.npz", rows) == 50
    back = [(text, ids.tolist(), british) for text, ids, british in read_phonemes(tmp_path / "p.npz")]
    assert back == rows
