"""What an engine needs to know to start; the same for both so that a flag means the same thing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

DtypeName = Literal["auto", "bf16", "fp16", "fp32"]
CudagraphMode = Literal["auto", "full", "full_and_piecewise", "piecewise"]
TORCH_NAMES: dict[DtypeName, str] = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """`model` is a Hugging Face directory (weights, config.json, generation_config.json)."""

    model: Path
    device: str = "auto"
    dtype: DtypeName = "auto"
    """auto is bfloat16 where the device computes in it natively, float32 elsewhere."""
    max_model_len: int = 4096
    max_num_seqs: int | None = None
    """None is the engine's default."""
    log_probs: bool = False
    """Report each token's log probability."""
    tensor_parallel_size: int = 1
    gpu_memory_utilization: float = 0.8
    enforce_eager: bool | None = None
    """None captures CUDA graphs on a GPU and runs eagerly on a CPU."""
    cudagraph_mode: CudagraphMode = "auto"
    """vLLM's names; auto is full, but full_and_piecewise, vLLM's own choice, with drafts."""
    cpu_kv_cache_gib: int = 2
    stream_interval: int = 1
    """Tokens per delta after the first one."""
    vllm_metrics: bool = False
    """vLLM's own statistics of every token and request."""
    speculative_tokens: int = 0
    """Draft tokens verified in one step; 0 leaves drafts unused."""
