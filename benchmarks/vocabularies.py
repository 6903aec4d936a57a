"""Vocabularies of the published sizes whose tokens are invented words: random ids make readable text."""

from __future__ import annotations

import base64
import itertools
import json
import random
from collections.abc import Iterator
from typing import Any

from gateway.text.ctc_vocabulary import special_tokens

LLM_TOKENS = 151_643
"""Ids before the control tokens of Qwen3; its embedding has 151,936 rows, the last ones unused."""
CTC_VOCABULARY = 60_515

_CONTROL = [
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>"),
    *("<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>"),
    *("<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>", "<tool_call>", "</tool_call>"),
    *("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>"),
    *("<|file_sep|>", "<tool_response>", "</tool_response>", "<think>", "</think>"),
]
# As real tokenizers do, these are one token each, so that a prompt is as long as a real one.
_PROMPT_WORDS = ["system", "You", " are", " a", " helpful", " assistant", "user", "assistant"]
_PROMPT_WORDS += ["语音", "转", "写", "语音转写", "："]
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_HANZI = range(0x4E00, 0x9FA6)


def _syllables() -> list[str]:
    endings = ("a", "e", "i", "o", "u", "an", "er", "in")
    return [onset + ending for onset in "bcdfghjklmnprstvwz" for ending in endings]


def words(seed: int = 0) -> Iterator[str]:
    """Chinese characters and invented Latin words with a leading space, mixed, none twice."""
    rng = random.Random(seed)
    syllables = _syllables()
    latin = [f" {''.join(parts)}" for parts in itertools.product(syllables, repeat=2)]
    latin += [f" {''.join(rng.sample(syllables, 3))}" for _ in range(400_000)]
    hanzi = [chr(code) for code in _HANZI]
    rng.shuffle(hanzi)
    # One Chinese character for four words, as long as there are any.
    for group in itertools.count():
        yield from hanzi[group : group + 1]
        yield from latin[4 * group : 4 * group + 4]
        if group > len(latin):
            return


def _byte_symbols() -> list[str]:
    """The printable character that byte-level BPE writes for each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def _distinct(first: list[str], count: int) -> list[str]:
    """`first`, then words, `count` in all."""
    return list(itertools.islice(dict.fromkeys(itertools.chain(first, words())), count))


def tokenizer_json() -> str:
    """A tokenizer.json with the ids of Qwen3: bytes, words, control tokens from 151,643 on."""
    symbols = _byte_symbols()
    pieces = [
        "".join(symbols[byte] for byte in word.encode()) for word in _distinct(_PROMPT_WORDS, LLM_TOKENS)
    ]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys([*symbols, *pieces]))}
    vocabulary = dict(itertools.islice(vocabulary.items(), LLM_TOKENS))
    control = [
        {"id": LLM_TOKENS + index, "content": content, "special": content.startswith("<|")}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for index, content in enumerate(_CONTROL)
    ]
    split = {"type": "Split", "pattern": {"Regex": _SPLIT}, "behavior": "Isolated", "invert": False}
    bytes_ = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    model: dict[str, Any] = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
    }
    model |= {"end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": True}
    whole: dict[str, Any] = {
        "version": "1.0",
        "added_tokens": control,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, bytes_]},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": model | {"vocab": vocabulary, "merges": []},
    }
    return json.dumps(whole, ensure_ascii=False)


def ctc_ranks() -> bytes:
    """A multilingual.tiktoken that gives 60,515 ids with the special tokens and the blank."""
    count = CTC_VOCABULARY - len(special_tokens())
    tokens = [bytes([byte]) for byte in range(256)]
    # A word that is no token of its own is spelt in syllables, as byte pairs merge to them.
    syllables = sorted(_syllables(), key=len)
    merges = [*syllables, *(f" {syllable}" for syllable in syllables)]
    tokens += [word.encode() for word in _distinct(merges, count)]
    ranks = itertools.islice(dict.fromkeys(tokens), count)
    return b"".join(base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(ranks))
