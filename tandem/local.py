"""The services of this machine for one owner: which model, what engine."""

from __future__ import annotations

import contextlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tandem.cores import available_cores
from tandem.errors import InvalidRequest
from tandem.launcher import Addresses, LaunchError, Stack, StackConfig, private_environment

DEMO = "demo"

_CORES_PER_GATEWAY = 4
_MOST_GATEWAYS = 4
_PARALLEL_SEGMENTS = 768
"""At the tiers at a time, the gateway's own default: what all gateways together may send."""


def demo_directory() -> Path:
    """The checkpoint that comes with the source tree (models/demo), or the one TANDEM_DEMO_MODEL names."""
    override = os.environ.get("TANDEM_DEMO_MODEL")
    path = Path(override) if override else Path(__file__).resolve().parents[1] / "models" / "demo"
    if not (path / "config.yaml").is_file():
        raise InvalidRequest(f"the demo model is not at {path}; set TANDEM_DEMO_MODEL or pass its directory")
    if not (path / "model.pt").is_file():
        raise InvalidRequest(f"the demo model at {path} is not unpacked; run make setup")
    return path


def resolve(model: str) -> str:
    """A directory or hub id; "demo" is the bundled checkpoint."""
    return str(demo_directory()) if model == DEMO else model


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What the services load and with what; the flags of the same names say the same.

    `engine` auto is vllm with a GPU of compute capability 8.0 or more, else transformers. `device` None is
    found. `max_model_len` counts prompt and output tokens together. `speculative_tokens` of CTC's text are
    verified by the language model in one step; 0 is off. `gateways`, a process each,
    share the recordings, because one interpreter is slower than a large GPU; None is one for every 4 cores,
    from 1 to 4. For the same reason `encoders` and `decoders` may share the GPU, with a copy of the weights
    each; decoders divide `gpu_memory_utilization`. Every decoder needs an encoder of its own: `encoders` None
    is as many as decoders. Raises InvalidRequest for fewer, and for less than one of any.
    """

    model: str = DEMO
    hub: str = "hf"
    device: str | None = None
    dtype: str = "auto"
    engine: str = "auto"
    tensor_parallel_size: int = 1
    gpu_memory_utilization: float = 0.8
    max_model_len: int = 4096
    speculative_tokens: int = 0
    cuda_graphs: bool = True
    gateways: int | None = None
    encoders: int | None = None
    decoders: int = 1

    def __post_init__(self) -> None:
        for name in ("gateways", "encoders", "decoders"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise InvalidRequest(f"{name} {number} is less than 1")
        if self.encoder_count() < self.decoders:
            raise InvalidRequest(f"{self.decoders} decoders need as many encoders, not {self.encoders}")

    def encoder_args(self) -> list[str]:
        flags = ["--dtype", self.dtype, "--cuda-graphs", str(self.cuda_graphs).lower()]
        if self.speculative_tokens:
            flags.append("--drafts")
        return [*flags, "--device", self.device] if self.device else flags

    def decoder_args(self) -> list[str]:
        flags = [
            *("--dtype", self.dtype),
            *("--tensor-parallel-size", str(self.tensor_parallel_size)),
            *("--gpu-memory-utilization", str(self.gpu_memory_utilization / self.decoders)),
            *("--max-model-len", str(self.max_model_len)),
            *("--speculative-tokens", str(self.speculative_tokens)),
            *([] if self.cuda_graphs else ["--enforce-eager"]),
        ]
        # A device is one GPU; a decoder that is spread over several takes the first ones it sees.
        return [*flags, "--device", self.device] if self.device and self.tensor_parallel_size == 1 else flags

    def gateway_count(self, cores: int) -> int:
        """How many gateways a machine of so many cores gets."""
        return self.gateways or max(1, min(_MOST_GATEWAYS, cores // _CORES_PER_GATEWAY))

    def encoder_count(self) -> int:
        """How many encoders there are."""
        return self.encoders or self.decoders

    def stack(self, directory: Path) -> StackConfig:
        """The services on Unix sockets in `directory`, their logs beside them."""
        cores = available_cores()
        gateways = self.gateway_count(cores)
        return StackConfig(
            model=resolve(self.model),
            hub=self.hub,
            engine=self.engine,
            addresses=Addresses.unix(directory, gateways, self.encoder_count(), self.decoders),
            encoder_args=self.encoder_args(),
            decoder_args=self.decoder_args(),
            # Only this user gets into the directory of the socket.
            gateway_args=["--local-files", *(_share(gateways, cores) if gateways > 1 else ())],
            log_dir=directory,
            environment=private_environment(),
        )


def _share(gateways: int, cores: int) -> list[str]:
    """One gateway's flags: together they keep as many cores and segments busy as a single one."""
    workers, segments = max(1, cores // gateways), max(1, _PARALLEL_SEGMENTS // gateways)
    return ["--audio-workers", str(workers), "--max-parallel-segments", str(segments)]


class LocalServices:
    """The services as children of this process; the constructor returns when they are ready.

    `addresses` are those of the gateways. Raises LaunchError when the services do not start.
    """

    def __init__(self, options: EngineOptions) -> None:
        with contextlib.ExitStack() as resources:
            directory = resources.enter_context(tempfile.TemporaryDirectory(prefix="tandem-"))
            self._stack = resources.enter_context(Stack(options.stack(Path(directory))))
            self._resources = resources.pop_all()
        self.addresses = self._stack.config.addresses.gateways

    def check(self) -> None:
        """LaunchError with the end of its log where one service has died."""
        if not self._stack.tiers:
            raise LaunchError("the services have been closed")
        for tier in list(self._stack.tiers):
            tier.check_alive()

    def close(self) -> None:
        """End the children; returns when they are gone. Closing twice is fine."""
        self._resources.close()
