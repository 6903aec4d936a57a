"""Which model a command means: the bundled demo, a directory or a hub id; and the flags that say so."""

from __future__ import annotations

import argparse

from tandem.local import DEMO, EngineOptions, demo_directory, resolve

__all__ = [
    "DEMO",
    "add_model_flags",
    "demo_directory",
    "encoder_flags",
    "engine_options",
    "resolve",
]


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    group.add_argument("--model", "--model-dir", default=DEMO, help='directory, hub id, or "demo" (default)')
    group.add_argument("--hub", choices=("hf", "ms"), default="hf", help="where a hub id is looked up")
    group.add_argument(
        "--device", help='of encoder and decoder: "cuda:0", "cpu"; with tensor parallel of the encoder alone'
    )
    group.add_argument("--dtype", default="auto", help="auto, bf16, fp16 or fp32")
    group.add_argument(
        "--engine",
        choices=("auto", "vllm", "transformers"),
        default="auto",
        help="decoder engine; auto is vllm with a GPU of compute capability 8.0 or more, else transformers",
    )
    group.add_argument("--tensor-parallel-size", type=int, default=1, help="GPUs of the vLLM decoder")
    group.add_argument("--gpu-memory-utilization", type=float, default=0.8, help="share of memory vLLM takes")
    group.add_argument(
        "--cuda-graphs",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="of the encoder and the vLLM decoder, on a GPU",
    )
    group.add_argument("--max-model-len", type=int, default=4096, help="prompt and output tokens together")
    group.add_argument(
        "--speculative-tokens",
        type=int,
        default=0,
        help="tokens of the CTC text that the language model verifies in one step; 0 for none",
    )


def engine_options(options: argparse.Namespace) -> EngineOptions:
    """The shared flags as the services take them."""
    return EngineOptions(
        model=options.model,
        hub=options.hub,
        device=options.device,
        dtype=options.dtype,
        engine=options.engine,
        tensor_parallel_size=options.tensor_parallel_size,
        gpu_memory_utilization=options.gpu_memory_utilization,
        max_model_len=options.max_model_len,
        speculative_tokens=options.speculative_tokens,
        cuda_graphs=options.cuda_graphs,
    )


def encoder_flags(options: argparse.Namespace) -> list[str]:
    """The encoder's own flags out of the shared ones."""
    return engine_options(options).encoder_args()
