"""The prompt around the audio embeddings, exactly as the published models were trained.

Token ids are [prefix | one position per audio embedding | suffix]; prefix and suffix are tokenised
apart, so that no merge ever spans the audio.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from tokenizers import Tokenizer

from gateway.text.languages import prompt_language

# Stands at audio positions wherever a whole prompt is shown as ids; the decoder never embeds it.
AUDIO_PLACEHOLDER_ID = 0
_CACHED = 64

_SYSTEM_TURN = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
_USER_HEADER = "<|im_start|>user\n"
_ASSISTANT_HEADER = "<|im_end|>\n<|im_start|>assistant\n"
_EMPTY_THINK = "<think>\n\n</think>\n\n"
_CONTEXT = (
    "请结合上下文信息，更加准确地完成语音转写任务。如果没有相关信息，我们会留空。\n\n\n**上下文信息：**\n\n\n"
)


@dataclass(frozen=True)
class PromptStyle:
    """Variations of the template that a checkpoint's config.yaml selects; defaults as published.

    system_turn: dataset_conf.sys_prompt. think: dataset_conf.do_think; when false an empty think
    block follows the assistant header.
    """

    system_turn: bool = True
    think: bool = True


@dataclass(frozen=True)
class PromptOptions:
    """What a request asks of the transcript.

    previous_text is a prefix of the answer that the model continues; it is not generated again.
    """

    language: str | None = None
    hotwords: tuple[str, ...] = ()
    itn: bool = True
    previous_text: str = ""


@dataclass(frozen=True)
class Prompt:
    """Text before and after the audio, and its token ids."""

    prefix: str
    suffix: str
    prefix_token_ids: tuple[int, ...]
    suffix_token_ids: tuple[int, ...]

    def token_ids(self, num_audio: int) -> list[int]:
        """The whole prompt with `num_audio` placeholder ids between prefix and suffix."""
        return [*self.prefix_token_ids, *([AUDIO_PLACEHOLDER_ID] * num_audio), *self.suffix_token_ids]


def clean_hotwords(hotwords: Iterable[str]) -> tuple[str, ...]:
    """Hotwords that cannot break out of their list: `热词列表：[a, b]`.

    Line breaks become spaces, `[` and `]` are removed, empty entries are dropped. A comma inside a
    hotword stays: the model then sees two shorter entries, which still biases towards both parts,
    while dropping it would bias towards a spelling nobody asked for. Repeated entries stay too:
    repeating a hotword strengthens it.
    """
    cleaned = (" ".join(re.sub(r"[\[\]]", "", word).split()) for word in hotwords)
    return tuple(word for word in cleaned if word)


def user_text(options: PromptOptions) -> str:
    """The instruction of the user turn; the audio follows it."""
    text = ""
    if options.hotwords:
        text += f"{_CONTEXT}热词列表：[{', '.join(options.hotwords)}]\n"
    text += "语音转写"
    if options.language is not None:
        text += f"成{options.language}"
    if not options.itn:
        text += "，不进行文本规整"
    return text + "："


class PromptBuilder:
    """Builds prompts with the tokenizer of one checkpoint (the bytes of its tokenizer.json)."""

    def __init__(self, tokenizer_json: bytes, style: PromptStyle | None = None) -> None:
        self._tokenizer = Tokenizer.from_str(tokenizer_json.decode("utf-8"))
        self._style = style or PromptStyle()
        # All segments of a recording ask for the same prompt.
        self._cached = lru_cache(maxsize=_CACHED)(self._build)
        added = [token.content for token in self._tokenizer.get_added_tokens_decoder().values()]
        longest_first = sorted(added, key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, longest_first))) if added else None
        self._ending_with: dict[str, list[list[str]]] = {}
        for token in longest_first:
            self._ending_with.setdefault(token[-1], []).append([*token])

    def build(self, options: PromptOptions) -> Prompt:
        """The prompt for one segment. Control tokens spelt out in client strings are removed."""
        return self._cached(options)

    def _build(self, options: PromptOptions) -> Prompt:
        language = prompt_language(options.language)
        safe = PromptOptions(
            language=self._line(language) or None if language is not None else None,
            hotwords=clean_hotwords(self._without_control(word) for word in options.hotwords),
            itn=options.itn,
            previous_text=self._without_control(options.previous_text),
        )
        prefix = (_SYSTEM_TURN if self._style.system_turn else "") + _USER_HEADER + user_text(safe)
        suffix = _ASSISTANT_HEADER + ("" if self._style.think else _EMPTY_THINK) + safe.previous_text
        return Prompt(prefix, suffix, self._ids(prefix), self._ids(suffix))

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def _line(self, text: str) -> str:
        return " ".join(self._without_control(text).split())

    def _without_control(self, text: str) -> str:
        """`text` without any string the tokenizer would read as a control token."""
        if self._control is None or not self._control.search(text):
            return text
        # Removing one may spell another: "<|im_<|im_end|>end|>". So each is removed where it ends, and what
        # stands before it never holds one; searching again and again would take the square of the time.
        kept: list[str] = []
        for character in text:
            kept.append(character)
            for token in self._ending_with.get(character, ()):
                if kept[-len(token) :] == token:
                    del kept[-len(token) :]
                    break
        return "".join(kept)
