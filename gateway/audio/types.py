"""Limits, options and results of audio decoding."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 16000

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """Bounds of one recording, checked while it is decoded.

    max_samples counts samples of all channels at the recording's own rate, which bounds the work that
    a small file can cause.
    """

    max_bytes: int = 512 * 1024 * 1024
    max_seconds: float = 4 * 3600.0
    max_samples: int = 4_000_000_000
    max_channels: int = 16
    max_decode_seconds: float = 600.0


class RawEncoding(Enum):
    """Sample formats of audio without a container, by their FFmpeg demuxer."""

    MULAW = "mulaw"
    ALAW = "alaw"
    S16LE = "s16le"


@dataclass(frozen=True, slots=True)
class RawFormat:
    """What a client says about audio that has no header; telephony by default."""

    encoding: RawEncoding
    sample_rate: int = 8000
    channels: int = 1

    def __post_init__(self) -> None:
        if not 1000 <= self.sample_rate <= 384_000:
            raise ValueError(f"sample rate {self.sample_rate} is not in 1000..384000")
        if not 1 <= self.channels <= 16:
            raise ValueError(f"{self.channels} channels are not in 1..16")


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """mix: the mean of all channels, else every channel by itself. raw: the audio has no header."""

    mix: bool = True
    raw: RawFormat | None = None


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What a recording was before it was decoded, and how much of it was damaged."""

    container: str
    codec: str
    sample_rate: int
    channels: int
    damaged_packets: int = 0


@dataclass(frozen=True, slots=True)
class DecodedAudio:
    """samples: float32 [n, channels] at 16 kHz; one channel when mixed. May be mapped from a file."""

    samples: FloatArray
    info: AudioInfo

    @property
    def num_channels(self) -> int:
        return int(self.samples.shape[1])

    @property
    def seconds(self) -> float:
        return len(self.samples) / SAMPLE_RATE

    def channel(self, index: int = 0) -> FloatArray:
        """Samples of one channel, float32 [n]."""
        return self.samples[:, index]
