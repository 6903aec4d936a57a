"""Which model a command means: the bundled demo, a directory or a hub id; and the flags that say so."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from tandem.errors import InvalidRequest

DEMO = "demo"


def demo_directory() -> Path:
    """The checkpoint that comes with the source tree (models/demo), or the one TANDEM_DEMO_MODEL names."""
    override = os.environ.get("TANDEM_DEMO_MODEL")
    path = Path(override) if override else Path(__file__).resolve().parents[2] / "models" / "demo"
    if not (path / "config.yaml").is_file():
        raise InvalidRequest(f"the demo model is not at {path}; set TANDEM_DEMO_MODEL or pass --model")
    return path


def resolve(model: str) -> str:
    """A directory or hub id; "demo" is the bundled checkpoint."""
    return str(demo_directory()) if model == DEMO else model


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    group.add_argument("--model", default=DEMO, help='directory, hub id, or "demo" (default)')
    group.add_argument("--hub", choices=("hf", "ms"), default="hf", help="where a hub id is looked up")
    group.add_argument(
        "--device", help='of the encoder and the transformers engine: "cuda:0", "cpu"; found if unset'
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
    group.add_argument("--max-model-len", type=int, default=4096, help="prompt and output tokens together")


def encoder_flags(options: argparse.Namespace) -> list[str]:
    """The encoder's own flags out of the shared ones."""
    flags = ["--dtype", options.dtype]
    return [*flags, "--device", options.device] if options.device else flags


def decoder_flags(options: argparse.Namespace) -> list[str]:
    """The decoder's own flags out of the shared ones."""
    flags = [
        *("--dtype", options.dtype),
        *("--tensor-parallel-size", str(options.tensor_parallel_size)),
        *("--gpu-memory-utilization", str(options.gpu_memory_utilization)),
        *("--max-model-len", str(options.max_model_len)),
    ]
    return [*flags, "--device", options.device] if options.device else flags
