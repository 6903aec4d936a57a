"""Splitting the language model out of a checkpoint: once, atomically, and only when every tensor fits."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from decoder_service.weights import STALE_SECONDS, language_model
from tandem.checkpoint import CheckpointError
from tests.support.services import NANO

HEAD = "llm.lm_head.weight"
EMBEDDING = "llm.model.embed_tokens.weight"


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A writable copy of the golden checkpoint, its weights to go next to it."""
    monkeypatch.delenv("TANDEM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user-cache"))
    copy = tmp_path / "nano"
    shutil.copytree(NANO, copy, ignore=shutil.ignore_patterns("*.wav", "expected.*", "*-llm-*"))
    return copy


def stored(checkpoint: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(checkpoint / "model.pt", weights_only=True)["state_dict"]
    return state


def rewrite(checkpoint: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    state = stored(checkpoint)
    change(state)
    torch.save({"state_dict": state}, checkpoint / "model.pt")


def exported(checkpoint: Path) -> list[str]:
    return sorted(path.name for path in checkpoint.iterdir() if "-llm-" in path.name)


def test_every_tensor_of_the_language_model_is_exported_but_the_tied_head(checkpoint: Path) -> None:
    model = language_model(checkpoint)
    written = load_file(model.directory / "model.safetensors")
    state = stored(checkpoint)
    wanted = {name for name in state if name.startswith("llm.")} - {HEAD}
    assert {f"llm.{name}" for name in written} == wanted
    assert all(torch.equal(written[name.removeprefix("llm.")], state[name]) for name in wanted)
    assert model.directory.name == f"Qwen3-0.6B-llm-{model.checkpoint_sha256[:16]}"
    assert (model.directory / "tokenizer.json").read_bytes() == (
        checkpoint / "Qwen3-0.6B" / "tokenizer.json"
    ).read_bytes()
    assert json.loads((model.directory / "generation_config.json").read_text()) == {"eos_token_id": 2}


def test_a_second_start_writes_nothing(checkpoint: Path) -> None:
    first = language_model(checkpoint).directory
    before = (first / "model.safetensors").stat()
    assert language_model(checkpoint).directory == first
    after = (first / "model.safetensors").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_new_checkpoint_never_meets_old_weights(checkpoint: Path) -> None:
    old = language_model(checkpoint).directory
    rewrite(checkpoint, lambda state: state["llm.model.norm.weight"].add_(1))
    new = language_model(checkpoint).directory
    assert new != old
    norms = [load_file(path / "model.safetensors")["model.norm.weight"] for path in (old, new)]
    assert torch.equal(norms[0] + 1, norms[1])


def test_processes_that_start_together_end_up_with_one_whole_copy(checkpoint: Path) -> None:
    code = (
        "import sys, pathlib; from decoder_service.weights import language_model;"
        "print(language_model(pathlib.Path(sys.argv[1])).directory)"
    )
    command = [sys.executable, "-c", code, str(checkpoint)]
    racers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    found = {racer.communicate(timeout=120)[0].strip() for racer in racers}
    assert [racer.returncode for racer in racers] == [0, 0, 0]
    assert len(found) == 1
    assert len(load_file(Path(found.pop()) / "model.safetensors")) == 35
    assert not list(checkpoint.glob(".*.partial"))


def test_a_killed_writer_s_leftover_is_never_used_and_goes_when_old(checkpoint: Path) -> None:
    first = language_model(checkpoint).directory
    shutil.rmtree(first)
    old, fresh = (checkpoint / f".{first.name}.{kind}.partial" for kind in ("old", "fresh"))
    for leftover in (old, fresh):
        leftover.mkdir()
        (leftover / "model.safetensors").write_bytes(b"half")
    long_ago = time.time() - STALE_SECONDS - 1
    os.utime(old, (long_ago, long_ago))
    assert load_file(language_model(checkpoint).directory / "model.safetensors")
    assert not old.exists()
    assert fresh.exists()


@pytest.mark.parametrize("named", [True, False])
def test_weights_go_elsewhere_when_told_or_when_the_checkpoint_is_read_only(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    if named:
        monkeypatch.setenv("TANDEM_CACHE", str(tmp_path / "named"))
    else:
        monkeypatch.setattr("decoder_service.weights.os.access", lambda path, mode: False)
    root = tmp_path / ("named" if named else "user-cache/tandem")
    assert language_model(checkpoint).directory.parent == root / "llm"
    assert exported(checkpoint) == []


BROKEN: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "missing": (
        lambda state: state.pop("llm.model.layers.1.mlp.up_proj.weight"),
        "1 missing: model.layers.1.mlp",
    ),
    "unexpected": (
        lambda state: state.update({"llm.model.layers.0.lora_A": torch.zeros(1)}),
        "1 unexpected: model.layers.0.lora_A",
    ),
    "misshapen": (
        lambda state: state.update({"llm.model.norm.weight": torch.zeros(64)}),
        r"model.norm.weight is \[64\], the configuration asks for \[128\]",
    ),
    "untied head": (lambda state: state[HEAD].add_(1), f"{HEAD} differs from {EMBEDDING}"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_weights_that_do_not_fit_are_refused_by_name(checkpoint: Path, fault: str) -> None:
    change, message = BROKEN[fault]
    rewrite(checkpoint, change)
    with pytest.raises(CheckpointError, match=message):
        language_model(checkpoint)
    assert exported(checkpoint) == []
    assert not list(checkpoint.glob(".*.partial"))


def test_an_untied_model_keeps_its_head(checkpoint: Path) -> None:
    path = checkpoint / "Qwen3-0.6B" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tie_word_embeddings": False}))
    rewrite(checkpoint, lambda state: state[HEAD].add_(1))
    head = load_file(language_model(checkpoint).directory / "model.safetensors")["lm_head.weight"]
    assert torch.equal(head, stored(checkpoint)[HEAD])


def test_a_config_without_the_language_model_s_folder_is_refused(checkpoint: Path) -> None:
    (checkpoint / "config.yaml").write_text("llm_conf: {}\n")
    with pytest.raises(CheckpointError, match=r"no llm_conf\.init_param_path"):
        language_model(checkpoint)
