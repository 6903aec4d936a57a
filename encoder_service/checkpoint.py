"""Opens a published Fun-ASR-Nano checkpoint: reads it safely, refuses it when its tensors do not fit."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from encoder_service.file_hash import file_sha256
from encoder_service.hub import CONFIG_FILE, WEIGHTS_FILE, CheckpointError, Hub, resolve_checkpoint
from encoder_service.model_config import NanoConfig, load_nano_config
from encoder_service.models.fun_asr_nano import FunASRNano

WRAPPERS = ("state_dict", "model_state_dict", "model")
CTC_PREFIXES = ("ctc_decoder.", "ctc.")
OTHER_TIER_PREFIX = "llm."

__all__ = ["Checkpoint", "CheckpointError", "Hub", "build_model", "load_checkpoint", "read_tensors"]


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model with what a peer needs to know to be sure that it holds the same one."""

    directory: Path
    config: NanoConfig
    model: FunASRNano
    sha256: str

    @property
    def has_ctc(self) -> bool:
        return self.model.ctc is not None


def load_checkpoint(model: str | Path, hub: Hub | None = None) -> Checkpoint:
    """Load a directory or hub id on the CPU, float32, eval mode. Raises CheckpointError or ConfigError."""
    directory = resolve_checkpoint(str(model), hub)
    config = load_nano_config(directory / CONFIG_FILE)
    weights = directory / WEIGHTS_FILE
    return Checkpoint(directory, config, build_model(config, read_tensors(weights)), file_sha256(weights))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Name to tensor of a model.pt, memory-mapped where the format allows; nothing in it is executed."""
    try:
        raw = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # torch raises its own, pickle's and zip's types for a damaged or unsafe file
        raise CheckpointError(f"cannot read {path}: {error}") from error
    tensors = _unwrap(raw)
    odd = [str(name) for name, value in tensors.items() if not isinstance(value, Tensor)]
    if odd or not tensors:
        raise CheckpointError(f"{path} is not a state dict; entries that are no tensors: {odd[:8]}")
    return {str(name).removeprefix("module."): value for name, value in tensors.items()}


def _unwrap(raw: Any) -> Mapping[Any, Any]:
    while isinstance(raw, Mapping):
        inner = next((raw[key] for key in WRAPPERS if isinstance(raw.get(key), Mapping)), None)
        if inner is None:
            return raw
        raw = inner
    raise CheckpointError(f"expected a state dict, found {type(raw).__name__}")


def build_model(config: NanoConfig, tensors: Mapping[str, Tensor]) -> FunASRNano:
    """Fill the networks of `config`; tensors under `llm.` belong to the decoder tier and are left alone.

    No CTC tensors at all means a model without CTC. Anything else that does not fit raises one
    CheckpointError that names every missing, unexpected and misshapen tensor.
    """
    own = {name: value for name, value in tensors.items() if not name.startswith(OTHER_TIER_PREFIX)}
    with_ctc = any(name.startswith(CTC_PREFIXES) for name in own)
    with torch.device("meta"):
        model = FunASRNano(config, with_ctc)
    _check(model.state_dict(), own)
    model.to_empty(device="cpu")
    model.load_state_dict({name: value.float() for name, value in own.items()})
    return model.eval().requires_grad_(False)


def _check(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    misshapen = [
        f"{name} is {list(found[name].shape)}, config.yaml asks for {list(value.shape)}"
        for name, value in expected.items()
        if name in found and found[name].shape != value.shape
    ]
    problems = {
        "missing": sorted(expected.keys() - found.keys()),
        "unexpected": sorted(found.keys() - expected.keys()),
        "misshapen": misshapen,
    }
    told = [f"{len(names)} {kind}: {'; '.join(names)}" for kind, names in problems.items() if names]
    if told:
        raise CheckpointError("the checkpoint does not fit its config.yaml. " + " | ".join(told))
