"""Which steps vLLM keeps as CUDA graphs: it launches such a step at once, others kernel by kernel."""

from __future__ import annotations

from typing import Any

from decoder_service.engines.settings import CudagraphMode

MAX_GRAPH_TOKENS = 2048
"""Tokens of the largest step with a graph: above it the GPU takes longer than launching its kernels."""


def graph_config(mode: CudagraphMode, speculative_tokens: int, max_num_seqs: int) -> dict[str, Any]:
    """vLLM's `compilation_config`.

    Prompts of speech are short and come all the time, so most steps read one. Full graphs hold such steps
    too; in vLLM's own choice, full_and_piecewise, attention is launched layer by layer there, and above 512
    tokens everything is. Where attention cannot be in a graph of such a step (FlashAttention 2) vLLM goes
    back to its own choice by itself. With drafts a full graph holds steps in which all requests verify as
    many tokens.
    """
    fed = 1 + speculative_tokens
    most = min(max_num_seqs, MAX_GRAPH_TOKENS // fed) if speculative_tokens else MAX_GRAPH_TOKENS
    if mode == "auto":
        mode = "full_and_piecewise" if speculative_tokens else "full"
    return {
        "cudagraph_mode": mode.upper(),
        "cudagraph_capture_sizes": [fed * count for count in _counts(max(1, most))],
    }


def _counts(most: int) -> list[int]:
    """Closer where a step has few requests, for there what is padded is a larger share of it."""
    counts = [
        1,
        2,
        4,
        *range(8, 256, 8),
        *range(256, 512, 16),
        *range(512, 1024, 64),
        *range(1024, most, 128),
    ]
    return [*(count for count in counts if count < most), most]
