"""Tandem: two-tier serving of LLM-based speech recognition. This package is what every part imports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from tandem.access import Access
    from tandem.batch_client import BatchClient
    from tandem.client import AsyncClient, Client
    from tandem.errors import TandemError
    from tandem.patience import Patience
    from tandem.results import RecognizeOptions, Segment, SilenceStep, TimestampSource, Transcript, Word
    from tandem.sdk import AutoModelVLLM, FunASRNanoVLLM
    from tandem.sdk_streaming import FunASRNanoStreamingVLLM
    from tandem.streaming_client import LiveStream, StreamOptions, stream

_HOME = {
    "Access": "tandem.access",
    "AsyncClient": "tandem.client",
    "AutoModelVLLM": "tandem.sdk",
    "BatchClient": "tandem.batch_client",
    "Client": "tandem.client",
    "FunASRNanoStreamingVLLM": "tandem.sdk_streaming",
    "FunASRNanoVLLM": "tandem.sdk",
    "LiveStream": "tandem.streaming_client",
    "Patience": "tandem.patience",
    "RecognizeOptions": "tandem.results",
    "Segment": "tandem.results",
    "SilenceStep": "tandem.results",
    "StreamOptions": "tandem.streaming_client",
    "TandemError": "tandem.errors",
    "TimestampSource": "tandem.results",
    "Transcript": "tandem.results",
    "Word": "tandem.results",
    "stream": "tandem.streaming_client",
}

__all__ = [
    "Access",
    "AsyncClient",
    "AutoModelVLLM",
    "BatchClient",
    "Client",
    "FunASRNanoStreamingVLLM",
    "FunASRNanoVLLM",
    "LiveStream",
    "Patience",
    "RecognizeOptions",
    "Segment",
    "SilenceStep",
    "StreamOptions",
    "TandemError",
    "TimestampSource",
    "Transcript",
    "Word",
    "__version__",
    "stream",
]


def __getattr__(name: str) -> Any:
    """The public names, loaded when first used: a tier that needs only the wire helpers stays light."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
