"""The services of this machine for one owner: which model, what engine; started and ended in a thread."""

from __future__ import annotations

import os
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

from tandem.errors import InvalidRequest
from tandem.launcher import Addresses, LaunchError, Stack, StackConfig

DEMO = "demo"


def demo_directory() -> Path:
    """The checkpoint that comes with the source tree (models/demo), or the one TANDEM_DEMO_MODEL names."""
    override = os.environ.get("TANDEM_DEMO_MODEL")
    path = Path(override) if override else Path(__file__).resolve().parents[1] / "models" / "demo"
    if not (path / "config.yaml").is_file():
        raise InvalidRequest(f"the demo model is not at {path}; set TANDEM_DEMO_MODEL or pass its directory")
    return path


def resolve(model: str) -> str:
    """A directory or hub id; "demo" is the bundled checkpoint."""
    return str(demo_directory()) if model == DEMO else model


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What the services load and with what; the flags of the same names say the same.

    `engine` auto is vllm with a GPU of compute capability 8.0 or more, else transformers. `device` None is
    found. `max_model_len` counts prompt and output tokens together.
    """

    model: str = DEMO
    hub: str = "hf"
    device: str | None = None
    dtype: str = "auto"
    engine: str = "auto"
    tensor_parallel_size: int = 1
    gpu_memory_utilization: float = 0.8
    max_model_len: int = 4096

    def encoder_args(self) -> list[str]:
        flags = ["--dtype", self.dtype]
        return [*flags, "--device", self.device] if self.device else flags

    def decoder_args(self) -> list[str]:
        flags = [
            *("--dtype", self.dtype),
            *("--tensor-parallel-size", str(self.tensor_parallel_size)),
            *("--gpu-memory-utilization", str(self.gpu_memory_utilization)),
            *("--max-model-len", str(self.max_model_len)),
        ]
        return [*flags, "--device", self.device] if self.device else flags

    def stack(self, directory: Path) -> StackConfig:
        """The three services on Unix sockets in `directory`, their logs beside them."""
        return StackConfig(
            model=resolve(self.model),
            hub=self.hub,
            engine=self.engine,
            addresses=Addresses.unix(directory),
            encoder_args=self.encoder_args(),
            decoder_args=self.decoder_args(),
            log_dir=directory,
        )


class LocalServices:
    """Three services as children of a thread of their own; the constructor returns when they are ready.

    The kernel ends children with the thread that started them, so that thread must outlive its caller's.
    Raises LaunchError when they do not start.
    """

    def __init__(self, options: EngineOptions) -> None:
        self.address = ""
        self._stack: Stack | None = None
        self._failure: BaseException | None = None
        self._ready, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, args=[options], name="tandem-local", daemon=True)
        self._thread.start()
        try:
            self._ready.wait()
        except BaseException:
            self._abandon()
            raise
        if self._failure is not None:
            raise self._failure

    def _run(self, options: EngineOptions) -> None:
        try:
            with tempfile.TemporaryDirectory(prefix="tandem-") as directory:
                self._stack = Stack(options.stack(Path(directory)))
                with self._stack as running:
                    self.address = running.address
                    self._ready.set()
                    self._stop.wait()
        except BaseException as error:
            self._failure = error
        finally:
            self._ready.set()

    def check(self) -> None:
        """LaunchError with the end of its log where one service has died."""
        for tier in list(self._stack.tiers) if self._stack is not None else ():
            tier.check_alive()
        if not self._thread.is_alive():
            raise LaunchError("the services have been closed")

    def close(self) -> None:
        """End the children; returns when they are gone. Closing twice is fine."""
        self._stop.set()
        self._thread.join()

    def _abandon(self) -> None:
        """The caller was interrupted while they start: ending one of them ends the wait for all."""
        self._stop.set()
        while self._thread.is_alive():
            for tier in list(self._stack.tiers) if self._stack is not None else ():
                tier.process.terminate()
            self._thread.join(0.1)
