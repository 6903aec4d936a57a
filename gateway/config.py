"""Configuration of the gateway: flags whose defaults come from TANDEM_GATEWAY_<FLAG> when set."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

DEFAULT_VAD = Path(__file__).resolve().parents[1] / "models" / "vad"


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """Addresses are gRPC targets; durations are seconds."""

    listen: str = "0.0.0.0:50051"
    encoder: str = "127.0.0.1:50052"
    vad_model: Path = DEFAULT_VAD
    max_audio_bytes: int = 512 * 1024 * 1024
    max_audio_duration: float = 4 * 3600.0
    audio_workers: int = 2
    drain_seconds: float = 30.0
    lameduck_seconds: float = 0.0
    log_level: str = "INFO"


def parse(arguments: Sequence[str] | None = None) -> GatewayConfig:
    """The configuration from the command line and the environment."""
    defaults = GatewayConfig()
    parser = argparse.ArgumentParser(prog="gateway", description="Client-facing gateway of Tandem.")

    def flag(name: str, kind: type, text: str) -> None:
        field = name.replace("-", "_")
        value = os.environ.get(f"TANDEM_GATEWAY_{field.upper()}", getattr(defaults, field))
        parser.add_argument(f"--{name}", type=kind, default=value, help=f"{text} (default {value})")

    flag("listen", str, "host:port or unix:path")
    flag("encoder", str, "gRPC target of the encoder tier")
    flag("vad-model", Path, "directory of FSMN-VAD: model.onnx and am.mvn")
    flag("max-audio-bytes", int, "largest recording accepted")
    flag("max-audio-duration", float, "longest recording accepted, seconds")
    flag("audio-workers", int, "processes that decode audio")
    flag("drain-seconds", float, "time for running calls after SIGTERM")
    flag("lameduck-seconds", float, "time between NOT_SERVING and refusing calls")
    flag("log-level", str, "DEBUG, INFO, WARNING or ERROR")
    return GatewayConfig(**vars(parser.parse_args(arguments)))
