"""The two vocabularies of the demo model, trained on its text: CTC ranks (tiktoken) and tokenizer.json."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import tiktoken
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from training.prompts import prompt_corpus

CTC_PATTERN = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
LLM_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
LLM_DIR = "Qwen3-0.6B"
RANKS_FILE = "multilingual.tiktoken"
LLM_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
PROMPT_WEIGHT = 20_000


def _byte_of_char() -> dict[str, int]:
    """The byte-level alphabet of GPT-2, as character to byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {chr(b): b for b in plain}
    rest = (b for b in range(256) if b not in set(plain))
    return table | {chr(256 + i): b for i, b in enumerate(rest)}


def _byte_level(pattern: str, vocab_size: int, specials: Iterable[str], texts: Iterable[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(s, special=True, normalized=False) for s in specials],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def train_ctc_ranks(texts: list[str], size: int, path: Path) -> None:
    """Writes `size` byte-pair ranks (the 256 bytes first) as `base64 rank` lines."""
    both = [t for text in texts for t in (text, " " + text)]
    vocab = _byte_level(CTC_PATTERN, size, (), both).get_vocab()
    to_byte = _byte_of_char()
    pieces = sorted(vocab, key=lambda piece: vocab[piece])
    raw = [bytes(to_byte[c] for c in piece) for piece in pieces]
    path.write_text("".join(f"{base64.b64encode(b).decode()} {rank}\n" for rank, b in enumerate(raw)))


def load_ctc_units(path: Path) -> tiktoken.Encoding:
    lines = [line.split() for line in path.read_text().splitlines() if line]
    ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
    return tiktoken.Encoding("demo", pat_str=CTC_PATTERN, mergeable_ranks=ranks, special_tokens={})


def train_llm_tokenizer(texts: list[str], size: int, directory: Path) -> None:
    """Writes tokenizer.json and tokenizer_config.json; fixed prompt strings become a few tokens."""
    directory.mkdir(parents=True, exist_ok=True)
    weighted = (line for line in prompt_corpus() for _ in range(max(PROMPT_WEIGHT, len(texts))))

    def corpus() -> Iterable[str]:
        for text in texts:
            yield text
            yield " " + text
        yield from weighted

    tokenizer = _byte_level(LLM_PATTERN, size, SPECIALS, corpus())
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 4096,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def train_units(texts: list[str], ctc_ranks: int, llm_vocab: int, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    unique = sorted(set(texts))
    train_ctc_ranks(unique, ctc_ranks, directory / RANKS_FILE)
    train_llm_tokenizer(unique, llm_vocab, directory / LLM_DIR)


def copy_units(source: Path, units: Path) -> None:
    """Takes both tokenizers over from an exported model or another run."""
    (units / LLM_DIR).mkdir(parents=True, exist_ok=True)
    shutil.copy(source / RANKS_FILE, units / RANKS_FILE)
    for name in LLM_TOKENIZER_FILES:
        shutil.copy(source / LLM_DIR / name, units / LLM_DIR / name)
