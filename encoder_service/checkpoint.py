"""Fills the networks from a published Fun-ASR-Nano checkpoint, and refuses it when its tensors do not fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from encoder_service.model_config import NanoConfig, parse_nano_config
from encoder_service.models.fun_asr_nano import FunASRNano
from tandem.checkpoint import (
    WEIGHTS_FILE,
    CheckpointError,
    Hub,
    describe_misfit,
    file_sha256,
    read_config,
    read_tensors,
    resolve_checkpoint,
)

CTC_PREFIXES = ("ctc_decoder.", "ctc.")
OTHER_TIER_PREFIX = "llm."


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
    config = parse_nano_config(read_config(directory))
    weights = directory / WEIGHTS_FILE
    return Checkpoint(directory, config, build_model(config, read_tensors(weights)), file_sha256(weights))


def build_model(config: NanoConfig, tensors: Mapping[str, Tensor]) -> FunASRNano:
    """Fill the networks of `config`; tensors under `llm.` belong to the decoder tier and are left alone.

    No CTC tensors at all means a model without CTC. Anything else that does not fit raises one
    CheckpointError that names every missing, unexpected and misshapen tensor.
    """
    own = {name: value for name, value in tensors.items() if not name.startswith(OTHER_TIER_PREFIX)}
    with_ctc = any(name.startswith(CTC_PREFIXES) for name in own)
    with torch.device("meta"):
        model = FunASRNano(config, with_ctc)
    misfit = describe_misfit(model.state_dict(), own)
    if misfit:
        raise CheckpointError(f"the checkpoint does not fit its config.yaml. {misfit}")
    model.to_empty(device="cpu")
    model.load_state_dict({name: value.float() for name, value in own.items()})
    return model.eval().requires_grad_(False)
