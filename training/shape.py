"""Dimensions of the demo model and the published files (config.yaml, Qwen3 config) that state them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from encoder_service.model_config import NanoConfig, parse_nano_config
from training.units import LLM_DIR


@dataclass(frozen=True)
class DemoShape:
    """Sizes of the bundled model; `toy` is for tests of the code path on a CPU."""

    size: int = 256
    heads: int = 4
    ffn: int = 896
    blocks: int = 6
    tp_blocks: int = 2
    adaptor_ffn: int = 384
    adaptor_blocks: int = 1
    downsample: int = 2
    ctc_ffn: int = 256
    ctc_blocks: int = 1
    ctc_ranks: int = 512
    llm_size: int = 256
    llm_layers: int = 4
    llm_heads: int = 4
    llm_kv_heads: int = 2
    llm_head_dim: int = 64
    llm_ffn: int = 384
    llm_vocab: int = 1536

    @classmethod
    def toy(cls) -> DemoShape:
        return cls(
            size=96, ffn=192, blocks=3, tp_blocks=1, adaptor_ffn=96, ctc_ffn=96, ctc_ranks=300,
            llm_size=96, llm_layers=2, llm_heads=2, llm_kv_heads=1, llm_head_dim=48, llm_ffn=192,
            llm_vocab=700,
        )  # fmt: skip


def config_yaml(shape: DemoShape) -> dict[str, Any]:
    """The checkpoint's config.yaml as a mapping."""
    adaptor = {"downsample_rate": shape.downsample, "use_low_frame_rate": False, "ffn_dim": shape.adaptor_ffn}
    return {
        "model": "FunASRNano",
        "audio_encoder": "SenseVoiceEncoderSmall",
        "audio_encoder_conf": {
            "output_size": shape.size,
            "attention_heads": shape.heads,
            "linear_units": shape.ffn,
            "num_blocks": shape.blocks,
            "tp_blocks": shape.tp_blocks,
            "dropout_rate": 0.1,
            "positional_dropout_rate": 0.1,
            "attention_dropout_rate": 0.1,
            "input_layer": "pe",
            "pos_enc_class": "SinusoidalPositionEncoder",
            "normalize_before": True,
            "kernel_size": 11,
            "sanm_shfit": 0,
            "selfattention_layer_type": "sanm",
        },
        "audio_adaptor": "Transformer",
        "audio_adaptor_conf": adaptor
        | {"llm_dim": shape.llm_size, "encoder_dim": shape.size, "n_layer": shape.adaptor_blocks},
        "ctc_decoder": "Transformer",
        "ctc_decoder_conf": {
            "downsample_rate": 1,
            "ffn_dim": shape.ctc_ffn,
            "llm_dim": shape.size,
            "encoder_dim": shape.size,
            "n_layer": shape.ctc_blocks,
        },
        "ctc_weight": 1.0,
        "ctc_vocab_size": shape.ctc_ranks + 1,
        "detach_ctc_decoder": False,
        "ctc_conf": {"dropout_rate": 0.0, "ctc_type": "builtin", "reduce": True, "ignore_nan_grad": True},
        "llm": "Qwen3-0.6b",
        "llm_conf": {"hub": "hf", "init_param_path": LLM_DIR, "llm_dtype": "bf16", "use_lora": False},
        "frontend": "WavFrontend",
        "frontend_conf": {
            "fs": 16000, "window": "hamming", "n_mels": 80, "frame_length": 25, "frame_shift": 10,
            "lfr_m": 7, "lfr_n": 6, "cmvn_file": None,
        },
        "dataset_conf": {
            "ctc_tokenizer": "SenseVoiceTokenizer",
            "ctc_tokenizer_conf": {"vocab_path": None, "is_multilingual": True, "num_languages": 8749},
            "ctc_target_normalize": True,
        },
        "tokenizer": "HuggingfaceTokenizer",
        "tokenizer_conf": {"init_param_path": LLM_DIR},
    }  # fmt: skip


def nano_config(shape: DemoShape) -> NanoConfig:
    return parse_nano_config(config_yaml(shape))


def qwen3_config(shape: DemoShape) -> dict[str, Any]:
    """Qwen3-0.6B/config.json: ids 0, 1, 2 are endoftext, im_start, im_end."""
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "head_dim": shape.llm_head_dim,
        "hidden_act": "silu",
        "hidden_size": shape.llm_size,
        "initializer_range": 0.02,
        "intermediate_size": shape.llm_ffn,
        "max_position_embeddings": 4096,
        "max_window_layers": shape.llm_layers,
        "num_attention_heads": shape.llm_heads,
        "num_hidden_layers": shape.llm_layers,
        "num_key_value_heads": shape.llm_kv_heads,
        "rms_norm_eps": 1e-06,
        "rope_parameters": {"rope_theta": 1000000.0, "rope_type": "default"},
        "rope_theta": 1000000.0,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": shape.llm_vocab,
    }


def write_configs(shape: DemoShape, directory: Path) -> None:
    """config.yaml, Qwen3-0.6B/config.json and generation_config.json (greedy, both end tokens stop)."""
    llm = directory / LLM_DIR
    llm.mkdir(parents=True, exist_ok=True)
    (directory / "config.yaml").write_text(
        yaml.safe_dump(config_yaml(shape), sort_keys=False, allow_unicode=True)
    )
    (llm / "config.json").write_text(json.dumps(qwen3_config(shape), indent=2) + "\n")
    generation = {"bos_token_id": 0, "eos_token_id": [2, 0], "pad_token_id": 0, "do_sample": False}
    (llm / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
