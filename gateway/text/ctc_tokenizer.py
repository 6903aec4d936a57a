"""The tokenizer of the CTC branch: multilingual.tiktoken, special tokens after it, the blank last."""

from __future__ import annotations

from collections.abc import Sequence

import tiktoken

from gateway.text.ctc_vocabulary import special_tokens
from tandem.ctc import CtcVocabularyError, parse_ranks

_SPLIT_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


class CtcTokenizer:
    """Text to CTC target ids and back.

    vocab_size is the width of the CTC head (60,515 as published); special tokens exist only as far
    as it reaches, and its last id is the blank.
    """

    def __init__(self, vocabulary: bytes, vocab_size: int) -> None:
        ranks = parse_ranks(vocabulary)
        room = vocab_size - len(ranks)
        specials = special_tokens()
        if not 1 <= room <= len(specials):
            raise CtcVocabularyError(
                f"{len(ranks)} ranks and 1 to {len(specials)} special tokens do not give {vocab_size} ids"
            )
        self.vocab_size = vocab_size
        self.num_text_tokens = len(ranks)
        self.blank_id = vocab_size - 1
        self.special_ids = {token: len(ranks) + i for i, token in enumerate(specials[:room])}
        self._encoding = tiktoken.Encoding(
            "ctc", pat_str=_SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens=self.special_ids
        )

    def encode(self, text: str) -> list[int]:
        """Target ids of `text`. Spelt-out special tokens are plain text; the result has no specials."""
        return self._encoding.encode_ordinary(text)

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes a token stands for, possibly a part of a character; empty for special tokens."""
        if not 0 <= token_id < self.vocab_size:
            raise CtcVocabularyError(f"token id {token_id} is outside the vocabulary of {self.vocab_size}")
        if token_id >= self.num_text_tokens:
            return b""
        return self._encoding.decode_single_token_bytes(token_id)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of `token_ids`, bytes merged across tokens; specials and broken characters are left out."""
        return b"".join(map(self.token_bytes, token_ids)).decode("utf-8", errors="ignore")
