"""Opens a published Fun-ASR-Nano checkpoint: finds it, reads it safely, and refuses it when its tensors do not fit."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from encoder_service.file_hash import file_sha256
from encoder_service.model_config import NanoConfig, load_nano_config
from encoder_service.models.fun_asr_nano import FunASRNano

Hub = Literal["hf", "ms"]
WEIGHTS_FILE = "model.pt"
CONFIG_FILE = "config.yaml"
WRAPPERS = ("state_dict", "model_state_dict", "model")
CTC_PREFIXES = ("ctc_decoder.", "ctc.")
OTHER_TIER_PREFIX = "llm."


class CheckpointError(RuntimeError):
    """The checkpoint cannot be found, read, or fitted to its own config.yaml."""


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
    """Load a directory or hub id on the CPU in float32, in eval mode. Raises CheckpointError or ConfigError."""
    directory = resolve_checkpoint(str(model), hub)
    config = load_nano_config(directory / CONFIG_FILE)
    weights = directory / WEIGHTS_FILE
    return Checkpoint(directory, config, build_model(config, read_tensors(weights)), file_sha256(weights))


def resolve_checkpoint(model: str, hub: Hub | None = None) -> Path:
    """Directory of a checkpoint: `model` itself when it is one, otherwise a snapshot of that id from the hub."""
    directory = Path(model).expanduser()
    if not directory.is_dir():
        if hub is None:
            raise CheckpointError(f"{model} is not a directory; to fetch it from a hub, name the hub (hf or ms)")
        directory = _snapshot(model, hub)
    missing = [name for name in (CONFIG_FILE, WEIGHTS_FILE) if not (directory / name).is_file()]
    if missing:
        raise CheckpointError(f"{directory} holds no {' and no '.join(missing)}")
    return directory


def _snapshot(model: str, hub: Hub) -> Path:
    package = {"hf": "huggingface_hub", "ms": "modelscope"}[hub]
    try:
        if hub == "hf":
            from huggingface_hub import snapshot_download
        else:
            from modelscope import snapshot_download
    except ImportError as error:
        raise CheckpointError(f"fetching {model} needs the package {package}, which is not installed") from error
    try:
        return Path(snapshot_download(model))
    except Exception as error:  # the hubs raise dozens of types; the cause stays attached
        raise CheckpointError(f"{package} could not fetch {model}: {error}") from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Name to tensor of a model.pt, memory-mapped where its format allows; nothing in the file is executed."""
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

    No CTC tensors at all means a model without CTC. Anything else that does not fit raises one CheckpointError that
    names every missing, unexpected and misshapen tensor.
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
