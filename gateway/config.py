"""Configuration of the gateway: flags whose defaults come from TANDEM_GATEWAY_<FLAG> when set."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tandem.flags import FlagParser, switch
from tandem.rpc.security import TlsFlags, add_tls_flags

DEFAULT_VAD = Path(__file__).resolve().parents[1] / "models" / "vad"


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """Addresses are gRPC targets; durations are seconds."""

    listen: str = "0.0.0.0:50051"
    encoder: str = "127.0.0.1:50052"
    encoder_grace: float = 10.0
    http_host: str = "0.0.0.0"
    http_port: int = 8899
    cors_origin: tuple[str, ...] = ()
    vad_model: Path = DEFAULT_VAD
    max_audio_bytes: int = 512 * 1024 * 1024
    max_audio_duration: float = 4 * 3600.0
    audio_workers: int = 0
    max_waiting_recordings: int = 512
    max_parallel_segments: int = 768
    local_files: bool = False
    drain_seconds: float = 30.0
    lameduck_seconds: float = 0.0
    metrics_port: int = 0
    health_listen: str = ""
    api_keys: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    tls_client_ca: str = ""
    tls_ca: str = ""
    tls_server_name: str = ""
    max_connection_age: float = 0.0
    log_level: str = "INFO"
    batch_spool_bytes: int = 16 << 30
    batch_parallel: int = 4
    batch_keep_seconds: float = 24 * 3600.0
    realtime_host: str = "0.0.0.0"
    realtime_port: int = 10095
    language: str = ""
    hotword_file: str = ""
    postprocess_hotword_file: str = ""
    enable_spk: bool = False
    endpoint_mode: str = "server"
    decode_interval: float = 0.32
    partial_window_sec: float = 8.0
    llm_partials: int = 32
    max_sessions: int = 1024
    session_idle: float = 300.0
    session_max: float = 4 * 3600.0
    resume_grace: float = 30.0
    live_encode_timeout: float = 1.0

    @property
    def tls(self) -> TlsFlags:
        return TlsFlags(self.tls_cert, self.tls_key, self.tls_client_ca, self.tls_ca, self.tls_server_name)


class _AddOrigins(argparse.Action):
    """A repeatable flag; given once, it replaces what the environment says."""

    def __call__(
        self, parser: object, namespace: argparse.Namespace, values: object, option: object = None
    ) -> None:
        before = getattr(namespace, self.dest)
        assert isinstance(values, tuple)
        setattr(namespace, self.dest, (*(before if isinstance(before, tuple) else ()), *values))


def _origins(text: str) -> tuple[str, ...]:
    return tuple(origin.strip().rstrip("/") for origin in text.split(",") if origin.strip())


def parse(arguments: Sequence[str] | None = None) -> GatewayConfig:
    """The configuration from the command line and the environment."""
    flags = FlagParser("gateway", "Client-facing gateway of Tandem.", "TANDEM_GATEWAY", GatewayConfig())
    flags.add("listen", str, "host:port or unix:path")
    flags.add("encoder", str, "gRPC targets of the encoder tier, separated by commas, or dns:///name:port")
    flags.add("encoder-grace", float, "seconds without any encoder after which the gateway is not ready")
    flags.add("http-host", str, "address of HTTP and WebSocket")
    flags.add("http-port", int, "port of HTTP and WebSocket; 0 turns them off")
    flags.add(
        "cors-origin",
        _origins,
        'origin of pages that may call the HTTP routes, "*" for all; repeatable',
        action=_AddOrigins,
    )
    flags.add("vad-model", Path, "directory of FSMN-VAD: model.onnx and am.mvn")
    flags.add("max-audio-bytes", int, "largest recording accepted")
    flags.add("max-audio-duration", float, "longest recording accepted, seconds")
    flags.add("audio-workers", int, "processes that decode recordings and find their speech; 0 is one a core")
    flags.add("max-waiting-recordings", int, "recordings that may wait for one of those; more are refused")
    flags.add("max-parallel-segments", int, "segments of recordings at the tiers at a time")
    flags.add(
        "local-files",
        switch,
        "gRPC clients may name files of this machine; for a Unix socket only",
        nargs="?",
        const=True,
    )
    flags.add("drain-seconds", float, "time for running calls after SIGTERM")
    flags.add("lameduck-seconds", float, "time between NOT_SERVING and refusing calls")
    flags.add("metrics-port", int, "port of Prometheus metrics; 0 turns them off")
    flags.add("health-listen", str, "second host:port for gRPC health checks alone, never encrypted")
    flags.add("api-keys", str, "file of hashed API keys (see `tandem key`); without one everybody gets in")
    flags.add("max-connection-age", float, "seconds after which gRPC clients must connect anew; 0 never")
    add_tls_flags(flags, upstream=True)
    flags.add("log-level", str, "DEBUG, INFO, WARNING or ERROR")
    _add_batch_flags(flags)
    _add_live_flags(flags)
    config = GatewayConfig(**flags.parse(arguments))
    if config.local_files and not config.listen.startswith("unix:"):
        flags.parser.error("--local-files needs --listen unix:PATH; anybody could read files through a port")
    return config


def _add_batch_flags(flags: FlagParser) -> None:
    flags.add("batch-spool-bytes", int, "disk space for recordings of batches that wait, and results")
    flags.add("batch-parallel", int, "recordings of batches that are recognized at a time")
    flags.add("batch-keep-seconds", float, "how long the results of a finished batch are kept")


def _add_live_flags(flags: FlagParser) -> None:
    flags.add("realtime-host", str, "address of the real-time WebSocket service")
    flags.add("realtime-port", int, "port of the real-time WebSocket service; 0 turns it off")
    flags.add("language", str, "of real-time WebSocket sessions that name none; unset lets the model decide")
    flags.add("hotword-file", str, "hotwords of real-time WebSocket sessions that bring none, one a line")
    flags.add("postprocess-hotword-file", str, "replacements in their final text, wrong=>right, one a line")
    flags.add("enable-spk", switch, "tell speakers apart in them, asked or not", nargs="?", const=True)
    flags.add("endpoint-mode", str, "who ends utterances on the WebSocket", choices=("server", "client"))
    flags.add("decode-interval", float, "new audio between two partials, seconds")
    flags.add("partial-window-sec", float, "audio that one CTC partial reads at most; 0 reads all of it")
    flags.add("llm-partials", int, "language-model partials outstanding in all sessions; 0 leaves CTC only")
    flags.add("max-sessions", int, "live sessions at a time")
    flags.add("session-idle", float, "seconds without audio after which a live session ends")
    flags.add("session-max", float, "longest live session, seconds")
    flags.add("resume-grace", float, "seconds a live session outlives a lost connection")
    flags.add(
        "live-encode-timeout",
        float,
        "seconds beyond what is to be expected after which live speech goes to another encoder; 0 never",
    )
