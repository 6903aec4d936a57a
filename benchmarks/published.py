"""A checkpoint of the published sizes with random weights, in seconds: speed does not depend on their values.

    python -m benchmarks.published OUT [--small]

234 M parameters of encoder and adaptor, 39 M of the CTC branch with 60,515 words, Qwen3-0.6B. Vocabularies
are invented (benchmarks/vocabularies.py). A speaker model of the shape of CAM++ is written beside it.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from benchmarks.vocabularies import CTC_VOCABULARY, ctc_ranks, tokenizer_json
from encoder_service.model_config import parse_nano_config
from encoder_service.models.campplus import CamPlusPlus
from encoder_service.models.fun_asr_nano import FunASRNano
from encoder_service.speaker import WEIGHTS as SPEAKER_WEIGHTS

LLM_NAME = "Qwen3-0.6B"
TOKENS_PER_EMBEDDING = 3 * 0.48
"""Speech gives about 3 tokens a second; one embedding of the published models covers 0.48 s."""

CONFIG: dict[str, Any] = {
    "model": "FunASRNano",
    "audio_encoder": "SenseVoiceEncoderSmall",
    "audio_encoder_conf": {
        "output_size": 512,
        "attention_heads": 4,
        "linear_units": 2048,
        "num_blocks": 50,
        "tp_blocks": 20,
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
    "audio_adaptor_conf": {
        "downsample_rate": 1,
        "use_low_frame_rate": True,
        "ffn_dim": 2048,
        "llm_dim": 1024,
        "encoder_dim": 512,
        "n_layer": 2,
    },
    "ctc_decoder": "Transformer",
    "ctc_decoder_conf": {
        "downsample_rate": 1,
        "ffn_dim": 2048,
        "llm_dim": 512,
        "encoder_dim": 512,
        "n_layer": 5,
    },
    "ctc_weight": 1.0,
    "ctc_vocab_size": CTC_VOCABULARY,
    "detach_ctc_decoder": True,
    "ctc_conf": {"dropout_rate": 0.0, "ctc_type": "builtin", "reduce": True, "ignore_nan_grad": True},
    "llm": "Qwen3-0.6b",
    "llm_conf": {"hub": "hf", "init_param_path": LLM_NAME, "llm_dtype": "bf16", "use_lora": False},
    "frontend": "WavFrontend",
    "frontend_conf": {
        "fs": 16000,
        "window": "hamming",
        "n_mels": 80,
        "frame_length": 25,
        "frame_shift": 10,
        "lfr_m": 7,
        "lfr_n": 6,
        "cmvn_file": None,
    },
    "dataset_conf": {
        "ctc_tokenizer": "SenseVoiceTokenizer",
        "ctc_tokenizer_conf": {"vocab_path": None, "is_multilingual": True, "num_languages": 8749},
        "ctc_target_normalize": True,
    },
    "tokenizer": "HuggingfaceTokenizer",
    "tokenizer_conf": {"init_param_path": LLM_NAME},
}
LLM: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 1024,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "max_position_embeddings": 40960,
    "max_window_layers": 28,
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-6,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
# The same layout and vocabularies, small enough for a CPU: to see that a benchmark runs.
_SMALL: dict[str, dict[str, Any]] = {
    "audio_encoder_conf": {"output_size": 128, "linear_units": 256, "num_blocks": 3, "tp_blocks": 1},
    "audio_adaptor_conf": {"encoder_dim": 128, "llm_dim": 128, "ffn_dim": 256, "n_layer": 1},
    "ctc_decoder_conf": {"encoder_dim": 128, "llm_dim": 128, "ffn_dim": 256, "n_layer": 1},
}
_SMALL_LLM = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "max_window_layers": 2}
_SMALL_LLM |= {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 64}
_GENERATION = {"bos_token_id": 151643, "pad_token_id": 151643, "eos_token_id": [151645, 151643]}
_TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "eos_token": "<|im_end|>",
    "pad_token": "<|endoftext|>",
    "clean_up_tokenization_spaces": False,
    "model_max_length": 131072,
}


def audio_shapes(config: dict[str, Any]) -> dict[str, torch.Size]:
    """Name and shape of every tensor of audio encoder, adaptor and CTC branch."""
    with torch.device("meta"):
        model = FunASRNano(parse_nano_config(config), with_ctc="ctc_decoder" in config)
    return {name: value.shape for name, value in model.state_dict().items()}


def llm_shapes(llm: dict[str, Any]) -> dict[str, torch.Size]:
    """Name and shape of every tensor of a Qwen3, under `llm.`, its tied head left out."""
    size, inner, head = llm["hidden_size"], llm["intermediate_size"], llm["head_dim"]
    queries, keys = llm["num_attention_heads"] * head, llm["num_key_value_heads"] * head
    layer = {
        "input_layernorm": (size,),
        "post_attention_layernorm": (size,),
        "self_attn.q_proj": (queries, size),
        "self_attn.k_proj": (keys, size),
        "self_attn.v_proj": (keys, size),
        "self_attn.o_proj": (size, queries),
        "self_attn.q_norm": (head,),
        "self_attn.k_norm": (head,),
        "mlp.gate_proj": (inner, size),
        "mlp.up_proj": (inner, size),
        "mlp.down_proj": (size, inner),
    }
    shapes = {"embed_tokens": (llm["vocab_size"], size), "norm": (size,)}
    for index in range(llm["num_hidden_layers"]):
        shapes |= {f"layers.{index}.{name}": shape for name, shape in layer.items()}
    return {f"llm.model.{name}.weight": torch.Size(shape) for name, shape in shapes.items()}


def random_tensor(name: str, shape: torch.Size, device: str, dtype: torch.dtype) -> Tensor:
    """Scaled so that activations stay of order one; a norm that does nothing."""
    if name.endswith("bias"):
        return torch.zeros(shape, device=device, dtype=dtype)
    if len(shape) == 1:
        return torch.ones(shape, device=device, dtype=dtype)
    scale = 0.02 if "embed_tokens" in name else 1 / math.sqrt(math.prod(shape[1:]))
    return torch.randn(shape, device=device, dtype=dtype).mul_(scale)


def write(
    out: Path,
    device: str = "cpu",
    config: dict[str, Any] = CONFIG,
    llm: dict[str, Any] = LLM,
    seed: int = 0,
) -> Path:
    """Write the checkpoint, and OUT-speaker beside it; returns `out`. `device` draws the numbers."""
    torch.manual_seed(seed)
    directory = out / LLM_NAME
    directory.mkdir(parents=True, exist_ok=True)
    (out / "config.yaml").write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    (out / "multilingual.tiktoken").write_bytes(ctc_ranks())
    (directory / "tokenizer.json").write_text(tokenizer_json(), encoding="utf-8")
    files = {"config": llm, "generation_config": _GENERATION, "tokenizer_config": _TOKENIZER_CONFIG}
    for name, content in files.items():
        (directory / f"{name}.json").write_text(json.dumps(content, indent=2), encoding="utf-8")
    shapes = audio_shapes(config) | llm_shapes(llm)
    tensors = {
        # As published: the CTC branch alone is float32.
        name: random_tensor(
            name, shape, device, torch.float32 if name.startswith("ctc") else torch.bfloat16
        ).cpu()
        for name, shape in shapes.items()
    }
    torch.save({"state_dict": tensors}, out / "model.pt")
    write_speaker_model(speaker_directory(out))
    return out


def small_config() -> dict[str, Any]:
    """CONFIG with the small networks."""
    return {name: {**part, **_SMALL[name]} if name in _SMALL else part for name, part in CONFIG.items()}


def ensure(out: Path, small: bool = False) -> Path:
    """The checkpoint at `out`, written when it is not there."""
    if not (out / "model.pt").is_file():
        device = "cuda" if torch.cuda.is_available() else "cpu"
        write(out, device, *((small_config(), LLM | _SMALL_LLM) if small else (CONFIG, LLM)))
    return out


def speaker_directory(model: Path) -> Path:
    """Where the speaker model of a checkpoint written here lies."""
    return model.with_name(f"{model.name}-speaker")


def write_speaker_model(directory: Path) -> None:
    """CAM++ as its modules are initialised."""
    directory.mkdir(parents=True, exist_ok=True)
    torch.save(CamPlusPlus().state_dict(), directory / SPEAKER_WEIGHTS)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--small", action="store_true", help="small networks, the same vocabularies")
    options = parser.parse_args()
    started = time.perf_counter()
    ensure(options.out, options.small)
    print(f"{options.out} after {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
