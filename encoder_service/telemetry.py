"""Prometheus metrics of the encoder tier: its queue, its batches, and time per stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from enum import StrEnum
from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram

from encoder_service.messages import EncodedAudio
from tandem.rpc.metrics import LATENCY, snapshot

if TYPE_CHECKING:
    from encoder_service.batcher import LoadSnapshot

_AUDIO = Counter("tandem_encoder_audio_seconds", "Seconds of audio encoded.")
_ITEMS = Histogram(
    "tandem_encoder_batch_items", "Segments in a batch.", buckets=(1, 2, 4, 8, 16, 32, 64, 128)
)
_STAGES = Histogram(
    "tandem_encoder_stage_seconds",
    "Waiting for a batch, and the batch's front end, networks and speaker model.",
    ("stage",),
    buckets=LATENCY,
)
_CACHE = Counter(
    "tandem_encoder_cache_requests",
    "Segments by where their encoding came from: hit (kept), shared (with an equal one at a time), miss.",
    ("outcome",),
)
_EVICTIONS = Counter("tandem_encoder_cache_evictions", "Kept encodings that made room for others.")
_CACHE_BYTES = Gauge("tandem_encoder_cache_bytes", "Memory of kept encodings.")
_GAUGES = {
    "tandem_encoder_queued_audio_seconds": "Seconds of audio waiting for a batch.",
    "tandem_encoder_running_audio_seconds": "Seconds of audio being encoded.",
    "tandem_encoder_audio_seconds_per_second": "Seconds of audio encoded per second of computing, recently.",
    "tandem_encoder_max_queued_audio_seconds": "Seconds of audio that may wait before requests are refused.",
    "tandem_encoder_waiting_requests": "Segments waiting for a batch.",
}


def observe_batch(results: Sequence[EncodedAudio], audio_seconds: float, waits: Sequence[float]) -> None:
    """Count one encoded batch; `waits` are the seconds that each segment waited for it."""
    _AUDIO.inc(audio_seconds)
    _ITEMS.observe(len(results))
    for wait in waits:
        _STAGES.labels("queue").observe(wait)
    times = results[0].times
    _STAGES.labels("frontend").observe(times.frontend)
    _STAGES.labels("compute").observe(times.compute)
    spoken = max(result.times.speakers for result in results)
    if spoken:
        _STAGES.labels("speakers").observe(spoken)


class CacheOutcome(StrEnum):
    """Where the encoding of a segment came from."""

    HIT = "hit"
    SHARED = "shared"
    MISS = "miss"


def observe_cache(outcome: CacheOutcome) -> None:
    """Count one segment that the cache was asked for."""
    _CACHE.labels(outcome).inc()


def observe_kept(evicted: int, kept_bytes: int) -> None:
    """Count encodings that were dropped for a new one, and note what is kept now."""
    _EVICTIONS.inc(evicted)
    _CACHE_BYTES.set(kept_bytes)


def load_gauges(read: Callable[[], LoadSnapshot]) -> AbstractContextManager[None]:
    """Gauges of the queue while the context is open."""

    def values() -> dict[str, float]:
        load = read()
        rate, limit = load.seconds_per_second, load.max_queued_seconds
        numbers = (load.queued_seconds, load.running_seconds, rate, limit, float(load.waiting_requests))
        return dict(zip(_GAUGES, numbers, strict=True))

    return snapshot(_GAUGES, values)
