"""The instruction prompts of training: wording of the published model, hotword lists sampled here.

Some samples respell a rare word in the list and in the target alike (Stephen for Steven): sound alone
cannot decide the spelling, so the model learns to take it from the list.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

CONTEXT = (
    "请结合上下文信息，更加准确地完成语音转写任务。如果没有相关信息，我们会留空。\n\n\n**上下文信息：**\n\n\n"
)
SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
SUFFIX = "<|im_end|>\n<|im_start|>assistant\n"
LANGUAGES: tuple[str | None, ...] = (None, None, None, None, "英文", "英文", "English", "中文")
WORD = re.compile(r"[A-Za-z][A-Za-z'-]*[A-Za-z]")
RARE = 40
RESPELL: tuple[tuple[str, str], ...] = (
    ("ph", "f"), ("f(?!f)", "ph"), ("ck", "k"), ("c(?=[aoulr])", "k"), ("k(?=[aoulr])", "c"),
    ("ee", "ea"), ("ea", "ee"), ("ie$", "y"), ("y$", "ie"), ("ey$", "y"),
    ("ll", "l"), ("nn", "n"), ("tt", "t"), ("ss", "s"), ("(?<=[aeiou])l(?=[aeiou])", "ll"),
    ("(?<=[aeiou])n(?=[aeiou])", "nn"), ("^C(?=[aoulr])", "K"),
    ("^K(?=[aoulr])", "C"), ("^Ph", "F"), ("^F", "Ph"),
    ("^J", "G"), ("^S(?=[aeiou])", "Z"), ("i(?=[nlrs])", "y"), ("ah$", "a"), ("a$", "ah"),
    ("er$", "or"), ("en$", "an"), ("on$", "en"), ("s$", "z"), ("th", "t"),
    ("ei", "ie"),
)  # fmt: skip


def user_text(hotwords: Iterable[str], language: str | None, itn: bool) -> str:
    words = list(hotwords)
    head = f"{CONTEXT}热词列表：[{', '.join(words)}]\n" if words else ""
    return (
        head + "语音转写" + (f"成{language}" if language else "") + ("" if itn else "，不进行文本规整") + "："
    )


def prefix_text(hotwords: Iterable[str], language: str | None, itn: bool) -> str:
    return SYSTEM + user_text(hotwords, language, itn)


def prompt_corpus() -> list[str]:
    """Texts that hold every fixed prompt string, for training the tokenizer."""
    languages = ("英文", "English", "中文", None)
    plain = [s for s in re.split(r"<\|\w+\|>", SYSTEM + SUFFIX) if s]
    return plain + [user_text(["Ann", "Bo"], lang, itn) for lang in languages for itn in (True, False)]


@dataclass(frozen=True)
class PromptSample:
    """One way to ask for an utterance and the text to answer with."""

    prefix: str
    target: str


class PromptSampler:
    """Draws prompts for a corpus whose rare words serve as hotwords and as distractors."""

    def __init__(self, texts: Iterable[str]) -> None:
        unique = set(texts)
        self._counts = Counter(word for text in unique for word in set(WORD.findall(text)))
        self._pool = sorted({word for text in unique for word in self.candidates(text)}) or ["Tandem"]

    def candidates(self, text: str) -> list[str]:
        """Words worth listing: names inside a sentence and rare longer words."""
        found = []
        for match in WORD.finditer(text):
            word = match.group()
            inside = match.start() > 0 and text[match.start() - 2 : match.start() - 1] not in ".?!"
            named = word[0].isupper() and inside and len(word) > 2
            if named or (len(word) > 4 and self._counts[word] <= RARE):
                found.append(word)
        return found

    def plain(self, text: str, rng: random.Random) -> PromptSample:
        return PromptSample(prefix_text((), rng.choice(LANGUAGES), rng.random() < 0.85), text)

    def biased(self, text: str, rng: random.Random, positive: float = 0.7) -> PromptSample:
        """A hotword list: with probability `positive` it holds words of the text, else distractors only."""
        words = self.candidates(text)
        hits: list[str] = []
        if words and rng.random() < positive:
            hits = rng.sample(words, min(len(words), rng.choice((1, 1, 1, 2, 3))))
            if rng.random() < 0.4:
                text, hits[0] = respell(text, hits[0], rng)
        count = max(len(hits), min(10, 1 + int(rng.expovariate(0.4))))
        listed = hits + rng.choices(self._pool, k=count - len(hits))
        rng.shuffle(listed)
        return PromptSample(
            prefix_text(dict.fromkeys(listed), rng.choice(LANGUAGES), rng.random() < 0.85), text
        )


def respell(text: str, word: str, rng: random.Random) -> tuple[str, str]:
    """Replaces `word` in `text` by a spelling that sounds the same, if a rule applies."""
    options = {re.sub(rule, to, word, count=1) for rule, to in RESPELL} - {word}
    if not options:
        return text, word
    new = rng.choice(sorted(options))
    return re.sub(rf"\b{re.escape(word)}\b", new, text), new
