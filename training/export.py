"""Writes a training checkpoint in the published layout: `python -m training.export CHECKPOINT OUT`."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from training.shape import DemoShape, write_configs
from training.units import copy_units


def published_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of the published checkpoint, bfloat16; the mid-encoder head stays behind."""
    out = {}
    for name, value in tensors.items():
        if name.startswith(("nano.", "llm.")):
            out[name.removeprefix("nano.")] = value.detach().to("cpu", torch.bfloat16).contiguous().clone()
    out["llm.lm_head.weight"] = out["llm.model.embed_tokens.weight"]
    return out


def export(tensors: dict[str, Tensor], shape: DemoShape, units: Path, directory: Path) -> None:
    """model.pt, config.yaml, multilingual.tiktoken and Qwen3-0.6B/ into `directory`."""
    write_configs(shape, directory)
    torch.save({"state_dict": published_tensors(tensors)}, directory / "model.pt")
    if units.resolve() != directory.resolve():
        copy_units(units, directory)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    state = torch.load(args.checkpoint, map_location="cpu", weights_only=True)
    export(state["average"], DemoShape(**state["shape"]), args.checkpoint.parent / "units", args.out)


if __name__ == "__main__":
    main()
