"""Makes a checkpoint with random weights in the published layout: speed does not depend on their values.

    python -m benchmarks.random_checkpoint OUT --like models/demo --set audio_adaptor_conf.llm_dim=1024 \
        --llm hidden_size=1024 --llm num_hidden_layers=1
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
import yaml

from encoder_service.model_config import parse_nano_config
from encoder_service.models.fun_asr_nano import FunASRNano


def assign(tree: dict[str, Any], path: str, value: Any) -> None:
    """Set `a.b=value` in nested mappings."""
    *parents, leaf = path.split(".")
    for name in parents:
        tree = tree[name]
    tree[leaf] = value


def audio_tensors(config: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Random audio encoder, adaptor and CTC branch of a parsed config.yaml."""
    model = FunASRNano(parse_nano_config(config), with_ctc="ctc_decoder" in config)
    return {name: value.to(torch.bfloat16) for name, value in model.state_dict().items()}


def llm_tensors(config: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Random language model of a transformers config, under `llm.`."""
    from transformers import AutoConfig, AutoModelForCausalLM

    fields = dict(config)
    model = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
        AutoConfig.for_model(fields.pop("model_type"), **fields), dtype=torch.bfloat16
    )
    return {f"llm.{name}": value for name, value in model.state_dict().items()}


def write(out: Path, like: Path, changes: dict[str, Any], llm_changes: dict[str, Any], seed: int = 0) -> Path:
    """Copy the layout of `like`, apply the changes, write random weights; returns `out`."""
    torch.manual_seed(seed)
    config = yaml.safe_load((like / "config.yaml").read_text(encoding="utf-8"))
    for path, value in changes.items():
        assign(config, path, value)
    llm_name = config["llm_conf"]["init_param_path"]
    shutil.copytree(like / llm_name, out / llm_name, dirs_exist_ok=True)
    shutil.copyfile(like / "multilingual.tiktoken", out / "multilingual.tiktoken")
    (out / "config.yaml").write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    llm_path = out / llm_name / "config.json"
    llm = {**json.loads(llm_path.read_text(encoding="utf-8")), **llm_changes}
    if "num_hidden_layers" in llm_changes and "layer_types" in llm:
        llm["layer_types"] = ["full_attention"] * llm["num_hidden_layers"]
    llm_path.write_text(json.dumps(llm, indent=2), encoding="utf-8")
    torch.save({"state_dict": {**audio_tensors(config), **llm_tensors(llm)}}, out / "model.pt")
    return out


def _pairs(items: list[str]) -> dict[str, Any]:
    return {name: json.loads(value) for name, value in (item.split("=", 1) for item in items)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--like", type=Path, default=Path("models/demo"))
    parser.add_argument(
        "--set", action="append", default=[], metavar="PATH=JSON", help="change of config.yaml"
    )
    parser.add_argument(
        "--llm", action="append", default=[], metavar="KEY=JSON", help="change of the LLM's config"
    )
    options = parser.parse_args()
    write(options.out, options.like, _pairs(options.set), _pairs(options.llm))


if __name__ == "__main__":
    main()
