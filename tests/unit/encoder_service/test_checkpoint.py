"""Opening checkpoints: wrappers are peeled, misfits are refused by name, missing CTC is told."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from encoder_service.checkpoint import load_checkpoint
from encoder_service.describe import tokenizer_files
from encoder_service.model_config import ConfigError
from tandem.checkpoint import CheckpointError, file_sha256, read_tensors, resolve_checkpoint
from tests.golden.nano import DIRECTORY

Tensors = dict[str, torch.Tensor]


@pytest.fixture
def variant(tmp_path: Path) -> Callable[[Any], Path]:
    """Writes a copy of the golden checkpoint with other content in model.pt."""

    def write(content: Any) -> Path:
        shutil.copy(DIRECTORY / "config.yaml", tmp_path)
        torch.save(content, tmp_path / "model.pt")
        return tmp_path

    return write


@pytest.fixture
def tensors() -> Tensors:
    return read_tensors(DIRECTORY / "model.pt")


def test_wrapped_and_prefixed_state_dict_loads(variant: Callable[[Any], Path], tensors: Tensors) -> None:
    prefixed = {f"module.{key}": value for key, value in tensors.items()}
    wrapped = {"epoch": 3, "model_state_dict": {"model": prefixed}}
    loaded = load_checkpoint(variant(wrapped)).model.state_dict()
    assert loaded.keys() == {key for key in tensors if not key.startswith("llm.")}
    assert all(torch.equal(value, tensors[key]) for key, value in loaded.items())


def test_bfloat16_weights_load_as_float32(variant: Callable[[Any], Path], tensors: Tensors) -> None:
    model = load_checkpoint(variant({key: value.bfloat16() for key, value in tensors.items()})).model
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}


def test_every_misfit_is_named_in_one_error(variant: Callable[[Any], Path], tensors: Tensors) -> None:
    del tensors["audio_encoder.encoders.1.norm1.weight"]
    tensors["audio_adaptor.linear1.bias"] = torch.zeros(3)
    tensors["audio_encoder.surprise"] = torch.zeros(1)
    tensors["discriminator.weight"] = torch.zeros(1)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(variant(tensors))
    message = str(caught.value)
    assert "1 missing: audio_encoder.encoders.1.norm1.weight" in message
    assert "2 unexpected: audio_encoder.surprise; discriminator.weight" in message
    assert "1 misshapen: audio_adaptor.linear1.bias is [3], the configuration asks for [128]" in message


def test_no_ctc_tensors_turns_ctc_off(variant: Callable[[Any], Path], tensors: Tensors) -> None:
    kept = {key: value for key, value in tensors.items() if not key.startswith("ctc")}
    checkpoint = load_checkpoint(variant(kept))
    assert not checkpoint.has_ctc
    out = checkpoint.model(torch.randn(1, 5, 560), torch.tensor([5]))
    assert out.ctc_hidden is None and out.audio_embeds.shape == (1, 1, 128)


def test_part_of_the_ctc_tensors_is_refused(variant: Callable[[Any], Path], tensors: Tensors) -> None:
    del tensors["ctc.ctc_lo.bias"]
    with pytest.raises(CheckpointError, match=r"1 missing: ctc\.ctc_lo\.bias$"):
        load_checkpoint(variant(tensors))


def test_code_in_the_file_is_not_executed(variant: Callable[[Any], Path], tmp_path: Path) -> None:
    class Touch:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "executed",))

    with pytest.raises(CheckpointError, match="cannot read"):
        load_checkpoint(variant({"state_dict": {"weight": Touch()}}))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("content", [{}, {"state_dict": {"weight": 3}}, [1, 2]])
def test_a_file_without_tensors_is_refused(variant: Callable[[Any], Path], content: Any) -> None:
    with pytest.raises(CheckpointError, match="state dict"):
        load_checkpoint(variant(content))


def test_damaged_file_is_refused(variant: Callable[[Any], Path], tensors: Tensors) -> None:
    directory = variant(tensors)
    weights = directory / "model.pt"
    weights.write_bytes(weights.read_bytes()[:100_000])
    with pytest.raises(CheckpointError, match="cannot read"):
        load_checkpoint(directory)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("selfattention_layer_type: sanm", "selfattention_layer_type: rel", "selfattention_layer_type='rel'"),
        ("attention_heads: 4", "attention_heads: 5", "5 attention heads do not divide 64"),
        ("  output_size: 64", "  output_size: 96", "audio_adaptor_conf.encoder_dim=64"),
        ("num_blocks: 4", "num_blocks: many", "num_blocks='many'"),
        ("audio_encoder: SenseVoiceEncoderSmall", "audio_encoder: Conformer", "audio_encoder='Conformer'"),
    ],
)
def test_unsupported_config_is_refused_by_key(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    text = (DIRECTORY / "config.yaml").read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "config.yaml").write_text(text.replace(old, new, 1), encoding="utf-8")
    shutil.copy(DIRECTORY / "model.pt", tmp_path)
    with pytest.raises(ConfigError) as caught:
        load_checkpoint(tmp_path)
    assert complaint in str(caught.value)


@pytest.mark.parametrize("named", ["Qwen3-0.6B", "/home/me/models/Qwen3-0.6B", "pretrained/Qwen3-0.6B/"])
def test_the_tokenizer_lies_in_the_checkpoint_wherever_training_had_it(tmp_path: Path, named: str) -> None:
    shutil.copytree(DIRECTORY, tmp_path, dirs_exist_ok=True)
    text = (tmp_path / "config.yaml").read_text(encoding="utf-8")
    assert "init_param_path: Qwen3-0.6B\n" in text
    moved = text.replace("init_param_path: Qwen3-0.6B\n", f"init_param_path: {named}\n")
    (tmp_path / "config.yaml").write_text(moved, encoding="utf-8")
    assert tokenizer_files(load_checkpoint(tmp_path)) == (
        tmp_path / "Qwen3-0.6B" / "tokenizer.json",
        tmp_path / "multilingual.tiktoken",
    )


def test_missing_files_and_directories_are_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.yaml and no model\.pt"):
        resolve_checkpoint(str(tmp_path))
    with pytest.raises(CheckpointError, match="name its hub"):
        resolve_checkpoint(str(tmp_path / "nowhere"))


@pytest.mark.parametrize(("hub", "package"), [("hf", "huggingface_hub"), ("ms", "modelscope")])
def test_missing_hub_package_is_told(monkeypatch: pytest.MonkeyPatch, hub: Any, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(CheckpointError, match=f"pip install {package}"):
        resolve_checkpoint("FunAudioLLM/Fun-ASR-Nano-2512", hub)


def test_offline_a_model_comes_from_the_hubs_cache_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TANDEM_OFFLINE", "1")
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match="modelscope could not fetch"):
        resolve_checkpoint("FunAudioLLM/Fun-ASR-Nano-2512", "ms")
    cached = tmp_path / "models" / "FunAudioLLM--Fun-ASR-Nano-2512" / "snapshots" / "master"
    cached.mkdir(parents=True)
    for name in ("config.yaml", "model.pt"):
        shutil.copy(DIRECTORY / name, cached)
    assert resolve_checkpoint("FunAudioLLM/Fun-ASR-Nano-2512", "ms") == cached


def test_hash_follows_the_content(tmp_path: Path) -> None:
    file, cache = tmp_path / "model.pt", tmp_path / "cache"
    for content in (b"one", b"other"):
        file.write_bytes(content)
        expected = hashlib.sha256(content).hexdigest()
        assert file_sha256(file, cache) == expected
        assert file_sha256(file, cache) == expected
    assert len(list((cache / "sha256").iterdir())) == 2


def test_unwritable_cache_does_not_matter(tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    file.write_bytes(b"one")
    assert file_sha256(file, file) == hashlib.sha256(b"one").hexdigest()
