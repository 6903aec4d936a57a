"""Token ids of the language model to text, whole or as they stream in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer

_BROKEN = "\ufffd"


class Detokenizer:
    """Decodes with the tokenizer of one checkpoint (the bytes of its tokenizer.json)."""

    def __init__(self, tokenizer_json: bytes) -> None:
        self._tokenizer = Tokenizer.from_str(tokenizer_json.decode("utf-8"))

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of `token_ids` without special tokens; bytes that form no character become U+FFFD."""
        return self._tokenizer.decode(list(token_ids), skip_special_tokens=True)

    def stream(self) -> StreamingDetokenizer:
        """A decoder for one answer."""
        return StreamingDetokenizer(self)


class StreamingDetokenizer:
    """Turns a token stream into text deltas that never split a character.

    The concatenation of all deltas and finish() equals Detokenizer.decode of all ids.
    """

    def __init__(self, detokenizer: Detokenizer) -> None:
        self._detokenizer = detokenizer
        self._ids: list[int] = []
        # ids[context:emitted] have been emitted and are decoded again as context, because a token's
        # text may depend on the one before it.
        self._context = 0
        self._emitted = 0

    def push(self, token_ids: Iterable[int]) -> str:
        """Adds tokens and returns the text that is now complete."""
        self._ids += token_ids
        delta, whole = self._delta()
        if whole.endswith(_BROKEN) or not delta:
            return ""
        self._context, self._emitted = self._emitted, len(self._ids)
        return delta

    def finish(self) -> str:
        """The rest of the text, broken characters included."""
        delta, _ = self._delta()
        self._context = self._emitted = len(self._ids)
        return delta

    def _delta(self) -> tuple[str, str]:
        before = self._detokenizer.decode(self._ids[self._context : self._emitted])
        whole = self._detokenizer.decode(self._ids[self._context :])
        return whole[len(before) :], whole
