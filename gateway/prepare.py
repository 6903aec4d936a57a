"""From a recording's bytes to samples and the spans of speech in them, off the event loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from gateway.backends.encoder import Samples
from tandem.results import RecognizeOptions


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of the recording in samples, end exclusive."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Prepared:
    """float32 samples [n] at 16 kHz, the spans to transcribe, and the seconds each step took."""

    samples: Samples
    spans: tuple[Span, ...]
    decode_seconds: float
    vad_seconds: float


class Preparer(Protocol):
    """Decodes and segments recordings."""

    async def prepare(self, audio: bytes, options: RecognizeOptions, max_segment: float) -> Prepared:
        """Raises InvalidAudio and LimitExceeded. `max_segment` is the model's limit in seconds."""
        ...
