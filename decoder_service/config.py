"""Configuration of the decoder tier: flags whose defaults come from TANDEM_DECODER_<FLAG> when set."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from decoder_service.engines.settings import CudagraphMode, DtypeName, EngineSettings
from tandem.checkpoint import Hub
from tandem.flags import FlagParser, switch
from tandem.rpc.security import SERVER_FLAGS, TlsFlags

ENGINES = ("auto", "vllm", "transformers")


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """Durations are seconds, lengths tokens. `model` is a checkpoint directory or a hub id."""

    model: str
    hub: Hub = "hf"
    engine: str = "auto"
    device: str = "auto"
    dtype: DtypeName = "auto"
    listen: str = ""
    port: int = 50053
    tensor_parallel_size: int = 1
    gpu_memory_utilization: float = 0.8
    max_model_len: int = 4096
    max_num_seqs: int | None = None
    max_waiting_requests: int = 256
    receive_timeout: float = 30.0
    enforce_eager: bool | None = None
    cudagraph_mode: CudagraphMode = "auto"
    log_probs: bool = False
    stream_interval: int = 1
    vllm_metrics: bool = False
    forced_tokens_per_embedding: float = 0.0
    speculative_tokens: int = 0
    cpu_kv_cache_gib: int = 2
    drain_seconds: float = 30.0
    lameduck_seconds: float = 0.0
    metrics_port: int = 0
    health_listen: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    tls_client_ca: str = ""
    max_connection_age: float = 0.0
    log_level: str = "INFO"

    @property
    def address(self) -> str:
        return self.listen or f"0.0.0.0:{self.port}"

    @property
    def tls(self) -> TlsFlags:
        return TlsFlags(self.tls_cert, self.tls_key, self.tls_client_ca)

    def engine_settings(self, directory: Path) -> EngineSettings:
        """For the language model in `directory`."""
        return EngineSettings(
            model=directory,
            device=self.device,
            dtype=self.dtype,
            max_model_len=self.max_model_len,
            max_num_seqs=self.max_num_seqs,
            log_probs=self.log_probs,
            tensor_parallel_size=self.tensor_parallel_size,
            gpu_memory_utilization=self.gpu_memory_utilization,
            enforce_eager=self.enforce_eager,
            cudagraph_mode=self.cudagraph_mode,
            cpu_kv_cache_gib=self.cpu_kv_cache_gib,
            stream_interval=self.stream_interval,
            vllm_metrics=self.vllm_metrics,
            speculative_tokens=self.speculative_tokens,
        )


def _at_least(minimum: float, kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def parse_value(text: str) -> Any:
        value = kind(text)
        if value < minimum:
            raise argparse.ArgumentTypeError(f"{text} is below {minimum}")
        return value

    return parse_value


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def parse(arguments: Sequence[str] | None = None) -> DecoderConfig:
    """The configuration from the command line and the environment; exits with usage when it is wrong."""
    flags = FlagParser("decoder_service", "Language model tier of Tandem.", "TANDEM_DECODER", DecoderConfig)
    flag = flags.add
    positive = _at_least(1, int)
    seconds = _at_least(0, float)
    flag("model", str, "checkpoint directory, or id on the hub")
    flag("hub", str, "where ids are looked up", choices=("hf", "ms"))
    flag(
        "engine",
        str,
        "auto is vllm with a GPU of compute capability 8.0 or more, else transformers",
        choices=ENGINES,
    )
    flag("device", str, "auto, cpu, cuda, cuda:1 or another torch device")
    flag("dtype", str, "what the engine computes in", choices=get_args(DtypeName))
    flag("listen", str, "host:port or unix:path; wins over --port")
    flag("port", _at_least(0, int), "port on all interfaces")
    flag("tensor-parallel-size", positive, "GPUs that share the model (vllm)")
    flag("gpu-memory-utilization", _share, "share of the GPU's memory to take (vllm)")
    flag("max-model-len", positive, "prompt and output together")
    flag("max-num-seqs", positive, "requests decoded side by side; the engine's default when unset")
    flag("max-waiting-requests", _at_least(0, int), "requests beyond those before refusing")
    flag("receive-timeout", seconds, "time for a prompt's tensors to arrive")
    flag("enforce-eager", switch, "no CUDA graphs (vllm); true on a CPU when unset", nargs="?", const=True)
    flag("cudagraph-mode", str, "what CUDA graphs hold (vllm)", choices=get_args(CudagraphMode))
    flag("log-probs", switch, "report log probabilities of tokens", nargs="?", const=True)
    flag("stream-interval", positive, "tokens per message after the first (vllm)")
    flag("vllm-metrics", switch, "vLLM's own metrics of tokens and requests (vllm)", nargs="?", const=True)
    flag(
        "forced-tokens-per-embedding",
        _at_least(0, float),
        "length of every answer in tokens per audio embedding, for benchmarks of random weights; 0 is off",
    )
    flag(
        "speculative-tokens",
        _at_least(0, int),
        "draft tokens verified in one step, for encoders with --drafts; 0 is off",
    )
    flag("cpu-kv-cache-gib", positive, "key-value cache of vLLM on a CPU")
    flag("drain-seconds", seconds, "time for running calls after SIGTERM")
    flag("lameduck-seconds", seconds, "time between NOT_SERVING and refusing calls")
    flag("metrics-port", _at_least(0, int), "port of Prometheus metrics; 0 turns them off")
    flag("health-listen", str, "second host:port for health checks alone, never encrypted")
    flag("max-connection-age", seconds, "seconds after which clients must connect anew; 0 never")
    for name, text in SERVER_FLAGS.items():
        flag(name, str, text)
    flag("log-level", str, "DEBUG, INFO, WARNING or ERROR")
    return DecoderConfig(**flags.parse(arguments))
