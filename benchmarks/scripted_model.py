"""A language model of the published size whose answers are known beforehand, and drafts with errors in them.

Weights are random but for one thing: the head's row of a token's successor is the token's own embedding, and
the layers add little to it, so each token is followed by its successor with a wide margin in any precision.
The work is that of the real model. The last id of a prompt chooses the answer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.drafted_requests import Drafted

QWEN3_600M = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "attention_bias": False,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 1024,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "max_position_embeddings": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "vocab_size": 151936,
}
EMBEDS_PER_SECOND, TOKENS_PER_SECOND = 2.08, 3.0
"""Of the published model: prompt positions, and tokens of an answer."""
SECONDS = (5.0, 25.0)
PREFIX_LENGTH = 16


def successors(vocab_size: int) -> torch.Tensor:
    """int64 [vocab]: the token that follows each; one cycle through the vocabulary without the end's id 0."""
    order = torch.randperm(vocab_size - 1, generator=torch.Generator().manual_seed(0)) + 1
    following = torch.zeros(vocab_size, dtype=torch.long)
    following[order] = order.roll(-1)
    return following


def write(directory: Path, changes: dict[str, int] | None = None) -> Path:
    """A Hugging Face directory; `changes` are keys of config.json, for smaller models."""
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM

    config = QWEN3_600M | (changes or {})
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (directory / "generation_config.json").write_text('{"eos_token_id": 0}', encoding="utf-8")
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            AutoConfig.from_pretrained(directory), dtype=torch.bfloat16
        )
    tensors = {name: value.cpu().contiguous() for name, value in model.state_dict().items()}
    vocab, hidden = config["vocab_size"], config["hidden_size"]
    assert isinstance(vocab, int) and isinstance(hidden, int)
    embedding = torch.randn(vocab, hidden, dtype=torch.float32).bfloat16()
    head = torch.empty_like(embedding)
    head[successors(vocab)[1:]] = embedding[1:]
    head[0] = 0
    tensors |= {"model.embed_tokens.weight": embedding, "lm_head.weight": head}
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def requests(vocab_size: int, hidden_size: int, count: int, error: float, seed: int = 0) -> list[Drafted]:
    """Requests of 5 to 25 s of speech; of their drafts' tokens `error` are wrong, missing or too many."""
    rng = np.random.default_rng(seed)
    following = successors(vocab_size).numpy()
    made = []
    for seconds in rng.uniform(*SECONDS, count):
        prefix = tuple(range(1, PREFIX_LENGTH + 1))
        token = int(rng.integers(1, vocab_size))
        embeds = rng.normal(0, 1, (round(seconds * EMBEDS_PER_SECOND), hidden_size)).astype(np.float32)
        answer: list[int] = []
        for _ in range(round(seconds * TOKENS_PER_SECOND)):
            answer.append(int(following[answer[-1] if answer else token]))
        draft = misheard(answer, error, vocab_size, rng)
        made.append(
            Drafted(prefix, embeds, (2, 3, token), draft, len(answer), ignore_eos=True, answer=tuple(answer))
        )
    return made


def misheard(
    answer: Sequence[int], error: float, vocab_size: int, rng: np.random.Generator
) -> tuple[int, ...]:
    """The answer with a third of the errors each a wrong token, a missing one and one too many."""
    heard: list[int] = []
    for token in answer:
        other = int(rng.integers(1, vocab_size))
        chance = rng.random() / error if error else 1.0
        if chance < 1 / 3:
            heard.append(other)
        elif chance < 2 / 3:
            continue
        elif chance < 1:
            heard += [token, other]
        else:
            heard.append(token)
    return tuple(heard)
