"""Configuration of the encoder tier: flags whose defaults come from TANDEM_ENCODER_<FLAG> when set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from encoder_service.audio_queue import BatchLimits
from encoder_service.batcher import BatcherConfig
from tandem.flags import FlagParser, switch
from tandem.rpc.security import TlsFlags, add_tls_flags

DEFAULT_SPEAKERS = Path(__file__).resolve().parents[1] / "models" / "speaker"


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """Addresses are gRPC targets; durations are seconds. Limits of 0 follow the device, see `batching`."""

    model: str = ""
    hub: str = "hf"
    listen: str = "0.0.0.0:50052"
    decoder: str = ""
    device: str = "auto"
    dtype: str = "auto"
    cuda_graphs: bool = True
    ctc_top_k: int = 16
    drafts: bool = False
    speaker_model: str = "auto"
    speaker_window: float = 1.5
    speaker_shift: float = 0.75
    max_segment: float = 60.0
    max_batch_items: int = 0
    max_batch_seconds: float = 0.0
    max_queued_seconds: float = 0.0
    max_live_seconds: float = 20_000.0
    max_wait_ms: float = 3.0
    max_kept_seconds: float = 30_000.0
    embedding_cache_mib: int = 256
    receive_timeout: float = 30.0
    drain_seconds: float = 30.0
    lameduck_seconds: float = 0.0
    metrics_port: int = 0
    health_listen: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    tls_client_ca: str = ""
    tls_ca: str = ""
    tls_server_name: str = ""
    max_connection_age: float = 0.0
    log_level: str = "INFO"

    @property
    def tls(self) -> TlsFlags:
        return TlsFlags(self.tls_cert, self.tls_key, self.tls_client_ca, self.tls_ca, self.tls_server_name)


def parse(arguments: Sequence[str] | None = None) -> EncoderConfig:
    """The configuration from the command line and the environment."""
    flags = FlagParser("encoder_service", "Audio encoder tier of Tandem.", "TANDEM_ENCODER", EncoderConfig())
    flags.add("model", str, "checkpoint directory or hub id")
    flags.add("hub", str, "where a hub id is looked up: hf or ms", choices=("hf", "ms"))
    flags.add("listen", str, "host:port or unix:path")
    flags.add(
        "decoder", str, "gRPC target of the decoder tier; without one, Transcribe answers ctc_only calls"
    )
    flags.add("device", str, "torch device, or auto: the first GPU where there is one")
    flags.add("dtype", str, "auto, bf16 or fp32")
    flags.add("cuda-graphs", switch, "replay batches as CUDA graphs, on a GPU in bf16", nargs="?", const=True)
    flags.add("ctc-top-k", int, "tokens per frame of compact posteriors")
    flags.add(
        "drafts",
        switch,
        "send CTC's text along as a draft, for decoders with --speculative-tokens",
        nargs="?",
        const=True,
    )
    flags.add("speaker-model", str, "directory of CAM++, auto: models/speaker if it is there, or none")
    flags.add("speaker-window", float, "seconds of speech in one speaker embedding")
    flags.add("speaker-shift", float, "seconds between speaker embeddings")
    flags.add("max-segment", float, "longest segment, seconds")
    flags.add("max-batch-items", int, "segments in one batch; 0 means 64, on a GPU 256")
    flags.add("max-batch-seconds", float, "seconds of audio in one batch; 0 means 240, on a GPU 480")
    flags.add(
        "max-queued-seconds",
        float,
        "seconds of audio that may wait, more is refused; 0 means 1200, on a GPU 7200",
    )
    flags.add("max-live-seconds", float, "seconds of live segments kept, 32 kB of the device's memory each")
    flags.add("max-wait-ms", float, "how long a request waits for company in an idle encoder")
    flags.add(
        "max-kept-seconds",
        float,
        "seconds of audio kept for exact word times while tokens are decoded, up to 34 kB each; 0 keeps none",
    )
    flags.add(
        "embedding-cache-mib",
        int,
        "memory for what recent segments were encoded to, so that the same audio is not encoded again, "
        "about 25 kB a second; 0 turns it off",
    )
    flags.add("receive-timeout", float, "time for each message of a segment's audio to arrive, seconds")
    flags.add("drain-seconds", float, "time for running calls after SIGTERM")
    flags.add("lameduck-seconds", float, "time between NOT_SERVING and refusing calls")
    flags.add("metrics-port", int, "port of Prometheus metrics; 0 turns them off")
    flags.add("health-listen", str, "second host:port for health checks alone, never encrypted")
    flags.add("max-connection-age", float, "seconds after which clients must connect anew; 0 never")
    add_tls_flags(flags, upstream=True)
    flags.add("log-level", str, "DEBUG, INFO, WARNING or ERROR")
    values = flags.parse(arguments)
    if not values["model"]:
        flags.parser.error("--model is required")
    return EncoderConfig(**values)


def batching(config: EncoderConfig, cuda: bool) -> BatcherConfig:
    """How requests are batched on the device.

    A GPU is through with a full batch in tens of milliseconds, so nobody waits long for what shares it; on a
    CPU it takes seconds, so segments share batches with others of about their length only.
    """
    limits = BatchLimits(
        max_items=config.max_batch_items or (256 if cuda else 64),
        max_seconds=config.max_batch_seconds or (480.0 if cuda else 240.0),
        max_spread=1.0 if cuda else BatchLimits.max_spread,
    )
    queued = config.max_queued_seconds or (7200.0 if cuda else 1200.0)
    return BatcherConfig(limits, queued, config.max_wait_ms / 1000)


def speaker_directory(name: str) -> Path | None:
    """Where --speaker-model says the weights lie; None for no speakers."""
    if name == "auto":
        return DEFAULT_SPEAKERS if DEFAULT_SPEAKERS.is_dir() else None
    return None if name in ("", "none") else Path(name).expanduser()
