"""What both engines read from a language model's directory before they load it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decoder_service.weights import read_json
from tandem.checkpoint import CheckpointError


@dataclass(frozen=True, slots=True)
class ModelFacts:
    hidden_size: int
    vocab_size: int
    max_positions: int
    eos_token_ids: frozenset[int]
    """Of config.json and generation_config.json together: either may name only some."""


def read_model_facts(directory: Path) -> ModelFacts:
    """Raises CheckpointError naming the key that is missing."""
    config = read_json(directory / "config.json")
    generation = read_json(directory / "generation_config.json")
    eos = _ids(config.get("eos_token_id")) | _ids(generation.get("eos_token_id"))
    if not eos:
        raise CheckpointError(f"{directory} names no eos_token_id: generation would never stop")
    return ModelFacts(
        hidden_size=_size(directory, config, "hidden_size"),
        vocab_size=_size(directory, config, "vocab_size"),
        max_positions=_size(directory, config, "max_position_embeddings"),
        eos_token_ids=frozenset(eos),
    )


def _size(directory: Path, config: dict[str, Any], key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or value < 1:
        raise CheckpointError(f"{directory / 'config.json'}: {key} is {value!r}")
    return value


def _ids(value: object) -> set[int]:
    values = value if isinstance(value, list) else [value]
    return {item for item in values if isinstance(item, int)}
