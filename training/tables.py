"""Token ids of a corpus in flat arrays: CTC targets, prompts and answers, addressed by start and length."""

from __future__ import annotations

import os
import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from training.prompts import SUFFIX, PromptSample, PromptSampler
from training.units import LLM_DIR, RANKS_FILE, load_ctc_units

AUDIO_RUN = 1024
AUDIO_ID = -1
END_ID = 2
PLAIN_PROMPTS = 2
BIASED_PROMPTS = 3
PROMPTS = PLAIN_PROMPTS + BIASED_PROMPTS


@dataclass(frozen=True)
class Table:
    """Sequences inside a flat array: `start` and `length` share a shape that begins with the utterance."""

    start: np.ndarray
    length: np.ndarray


@dataclass(frozen=True)
class TokenTables:
    """`ctc` [N, 2] and `answer` [N, PROMPTS, 2]: last index 1 is the form after a space.
    `prefix` [N, PROMPTS].

    `llm_flat` begins with AUDIO_RUN placeholders; then the suffix and the end token.
    """

    ctc_flat: np.ndarray
    ctc: Table
    ctc_repeats: np.ndarray
    llm_flat: np.ndarray
    prefix: Table
    answer: Table
    suffix: tuple[int, int]
    end: tuple[int, int]


def build_tables(texts: list[str], units: Path, seed: int = 0) -> TokenTables:
    """Draws PROMPTS prompts for every text and encodes everything, on all cores."""
    samples = _draw(texts, seed)
    ctc_rows = _encode_ctc(texts, units)
    ctc_flat, ctc = _flatten(ctc_rows, 0)
    repeats = np.array([int((np.diff(np.array(row)) == 0).sum()) for row in ctc_rows])
    tokenizer = Tokenizer.from_file(str(units / LLM_DIR / "tokenizer.json"))
    head = [AUDIO_ID] * AUDIO_RUN + tokenizer.encode(SUFFIX, add_special_tokens=False).ids + [END_ID]
    prefix_flat, prefix = _flatten(_encode(tokenizer, [s.prefix for s in samples]), len(head))
    answers = [form for s in samples for form in (s.target, " " + s.target)]
    base = len(head) + len(prefix_flat)
    answer_flat, answer = _flatten(_encode(tokenizer, answers), base)
    flat = np.concatenate([np.array(head, dtype=np.int32), prefix_flat, answer_flat])
    n = len(texts)
    return TokenTables(
        ctc_flat,
        _shape(ctc, (n, 2)),
        repeats.reshape(n, 2),
        flat,
        _shape(prefix, (n, PROMPTS)),
        _shape(answer, (n, PROMPTS, 2)),
        suffix=(AUDIO_RUN, len(head) - 1 - AUDIO_RUN),
        end=(len(head) - 1, 1),
    )


def _draw(texts: list[str], seed: int) -> list[PromptSample]:
    global _sampler
    _sampler = PromptSampler(texts)
    workers = min(16, os.cpu_count() or 1)
    chunk = max(1, -(-len(texts) // (workers * 4)))
    jobs = [(texts[i : i + chunk], seed + i) for i in range(0, len(texts), chunk)]
    if len(jobs) < 8:
        return [s for job in jobs for s in _draw_chunk(job)]
    with ProcessPoolExecutor(workers) as pool:
        return [s for part in pool.map(_draw_chunk, jobs) for s in part]


_sampler: PromptSampler | None = None


def _draw_chunk(job: tuple[list[str], int]) -> list[PromptSample]:
    texts, seed = job
    assert _sampler is not None
    rng = random.Random(seed)
    out = []
    for text in texts:
        out += [_sampler.plain(text, rng) for _ in range(PLAIN_PROMPTS)]
        out += [_sampler.biased(text, rng) for _ in range(BIASED_PROMPTS)]
    return out


def _encode_ctc(texts: list[str], units: Path) -> list[list[int]]:
    encoding = load_ctc_units(units / RANKS_FILE)
    both = [form for text in texts for form in (text, " " + text)]
    return encoding.encode_ordinary_batch(both, num_threads=min(16, os.cpu_count() or 1))


def _encode(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [e.ids for e in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


def _flatten(rows: list[list[int]], base: int) -> tuple[np.ndarray, Table]:
    length = np.array([len(row) for row in rows], dtype=np.int64)
    flat = np.fromiter((i for row in rows for i in row), dtype=np.int32, count=int(length.sum()))
    return flat, Table(base + np.cumsum(length) - length, length)


def _shape(table: Table, shape: tuple[int, ...]) -> Table:
    return Table(table.start.reshape(shape), table.length.reshape(shape))
