"""The prompt as the published implementation tokenises it, and its answers as text."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.text.ctc_tokenizer import CtcTokenizer
from gateway.text.detokenize import Detokenizer
from gateway.text.prompt import PromptBuilder, PromptOptions
from tests.golden.nano import DIRECTORY

_EXPECTED = json.loads((DIRECTORY / "expected.json").read_text(encoding="utf-8"))
_PROMPTS = [case for case in _EXPECTED["cases"] if "prompt" in case]
_ALIGNED = [case for case in _EXPECTED["cases"] if "align_text" in case]
_TOKENIZER_JSON = (DIRECTORY / "Qwen3-0.6B" / "tokenizer.json").read_bytes()


def _name(case: dict[str, Any]) -> str:
    return str(case["case"])


def test_every_recorded_case_is_covered() -> None:
    assert len(_PROMPTS) == 9
    assert len(_ALIGNED) == 3


@pytest.mark.parametrize("case", _PROMPTS, ids=_name)
def test_prompt(case: dict[str, Any]) -> None:
    options = PromptOptions(case["language"], tuple(case["hotwords"]), case["itn"])
    prompt = PromptBuilder(_TOKENIZER_JSON).build(options)
    assert prompt.prefix.endswith(case["prompt"])
    assert len(prompt.prefix_token_ids) == case["audio_begin"]
    assert prompt.token_ids(case["audio_tokens"]) == case["prompt_token_ids"]


@pytest.mark.parametrize("case", _PROMPTS, ids=_name)
def test_answer_text(case: dict[str, Any]) -> None:
    detokenizer = Detokenizer(_TOKENIZER_JSON)
    ids = case["greedy_token_ids"]
    assert detokenizer.decode(ids) == case["greedy_text"]
    stream = detokenizer.stream()
    deltas = [stream.push([token_id]) for token_id in ids]
    assert "".join(deltas) + stream.finish() == case["greedy_text"]


@pytest.mark.parametrize("case", _ALIGNED, ids=_name)
def test_ctc_targets(case: dict[str, Any]) -> None:
    vocabulary = (DIRECTORY / "multilingual.tiktoken").read_bytes()
    tokenizer = CtcTokenizer(vocabulary, vocab_size=440)
    assert tokenizer.blank_id == case["ctc_blank_id"]
    assert tokenizer.encode(case["align_text"]) == case["align_target_ids"]
    assert tokenizer.decode(case["align_target_ids"]) == case["align_text"]
