"""Splits the language model out of a speech checkpoint into a Hugging Face directory, once per checkpoint.

Both engines load that directory. Its name carries the hash of model.pt: a new one never meets old weights.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from tandem.checkpoint import (
    WEIGHTS_FILE,
    CheckpointError,
    cache_directory,
    describe_misfit,
    file_sha256,
    read_config,
    read_tensors,
)

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("decoder.weights")

PREFIX = "llm."
EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
WEIGHT_SUFFIXES = frozenset({".safetensors", ".bin", ".pt", ".pth", ".gguf"})
STALE_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """A language model ready to load, and the checkpoint that it came from."""

    directory: Path
    checkpoint_sha256: str


def language_model(checkpoint: Path) -> LanguageModel:
    """The Hugging Face directory of the checkpoint's language model, written on first use.

    Goes to $TANDEM_CACHE when set, else next to the checkpoint, else to the user's cache directory.
    Raises CheckpointError when the tensors under `llm.` do not fit the model's config.json.
    """
    sha256 = file_sha256(checkpoint / WEIGHTS_FILE)
    source = llm_directory(checkpoint)
    target = _root(checkpoint) / f"{source.name}-llm-{sha256[:16]}"
    if not target.is_dir():
        _export(checkpoint, source, target)
    return LanguageModel(target, sha256)


def llm_directory(checkpoint: Path) -> Path:
    """Configuration and tokenizer of the language model: `llm_conf.init_param_path` of config.yaml."""
    llm_conf = read_config(checkpoint).get("llm_conf")
    named = llm_conf.get("init_param_path") if isinstance(llm_conf, Mapping) else None
    if not isinstance(named, str) or not PurePosixPath(named).name:
        raise CheckpointError(f"{checkpoint}: config.yaml has no llm_conf.init_param_path")
    directory = checkpoint / PurePosixPath(named).name
    if not (directory / "config.json").is_file():
        raise CheckpointError(f"{directory} holds no config.json (llm_conf.init_param_path is {named!r})")
    return directory


def _root(checkpoint: Path) -> Path:
    if "TANDEM_CACHE" not in os.environ and os.access(checkpoint, os.W_OK):
        return checkpoint
    return cache_directory() / "llm"


def _export(checkpoint: Path, source: Path, target: Path) -> None:
    """Write beside the target under a name of our own, then rename: whoever renames first wins."""
    started = time.monotonic()
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(target)
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
    try:
        _write(read_language_model(checkpoint, source), source, partial)
        partial.chmod(0o755)
        try:
            partial.rename(target)
        except OSError:
            if not target.is_dir():
                raise
            log.info("another process wrote %s first", target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    log.info("language model weights in %s after %.1f s", target, time.monotonic() - started)


def _remove_stale(target: Path) -> None:
    """What a killed process left behind."""
    for leftover in target.parent.glob(f".{target.name}.*.partial"):
        if time.time() - leftover.stat().st_mtime > STALE_SECONDS:
            shutil.rmtree(leftover, ignore_errors=True)


def _write(tensors: Mapping[str, Tensor], source: Path, directory: Path) -> None:
    from safetensors.torch import save_file

    for file in source.iterdir():
        if file.is_file() and file.suffix not in WEIGHT_SUFFIXES and ".safetensors." not in file.name:
            shutil.copyfile(file, directory / file.name)
    if not (directory / "generation_config.json").exists():
        eos = read_json(source / "config.json").get("eos_token_id")
        (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": eos}), encoding="utf-8")
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    weights = directory / "model.safetensors"
    save_file(contiguous, weights, metadata={"format": "pt"})
    weights.chmod(0o644)


def read_language_model(checkpoint: Path, source: Path) -> dict[str, Tensor]:
    """Tensors under `llm.`, prefix removed, checked against the architecture that config.json describes."""
    found = {
        name.removeprefix(PREFIX): tensor
        for name, tensor in read_tensors(checkpoint / WEIGHTS_FILE).items()
        if name.startswith(PREFIX)
    }
    expected = _expected_tensors(source)
    if read_json(source / "config.json").get("tie_word_embeddings"):
        expected.pop(HEAD, None)
        _drop_tied_head(found)
    if misfit := describe_misfit(expected, found):
        raise CheckpointError(f"the tensors under {PREFIX} do not fit {source / 'config.json'}. {misfit}")
    return found


def _expected_tensors(source: Path) -> dict[str, Tensor]:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    model_class: Any = AutoModelForCausalLM
    config = AutoConfig.from_pretrained(source, local_files_only=True)
    with torch.device("meta"):
        return dict(model_class.from_config(config).state_dict())


def _drop_tied_head(tensors: dict[str, Tensor]) -> None:
    """A stored head is redundant only when it really is the embedding."""
    import torch

    head = tensors.pop(HEAD, None)
    embedding = tensors.get(EMBEDDING)
    if head is not None and embedding is not None and not torch.equal(head, embedding):
        raise CheckpointError(
            f"{PREFIX}{HEAD} differs from {PREFIX}{EMBEDDING}, but config.json says tie_word_embeddings"
        )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises CheckpointError when it is unreadable or something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} is not a JSON object")
    return value
