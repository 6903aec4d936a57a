"""Limits, options and results of audio decoding."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 16000

FloatArray = NDArray[np.float32]
PcmArray = NDArray[np.int16]
Samples = FloatArray | PcmArray
"""float32 in [-1, 1], or int16 with 32768 as full scale."""
Stretch = tuple[int, int]
"""Samples [start, end)."""


def to_float(samples: Samples) -> FloatArray:
    """The samples as float32 in [-1, 1]; exact, and no copy where they are that already."""
    if samples.dtype == np.int16:
        scaled: FloatArray = np.multiply(samples, np.float32(1 / 32768), dtype=np.float32)
        return scaled
    return samples.astype(np.float32, copy=False)


def to_pcm16(samples: Samples) -> PcmArray:
    """The samples rounded to 16 bits; no copy where they are that already."""
    if samples.dtype == np.int16:
        return samples.astype(np.int16, copy=False)
    rounded = np.rint(samples * np.float32(32768))
    pcm: PcmArray = np.clip(rounded, -32768, 32767, out=rounded).astype(np.int16)
    return pcm


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
    """What a recording was before it was decoded, and how much of it was damaged.

    fine: it is lossless and of more than 16 bits, so that rounding to 16 could lose something.
    """

    container: str
    codec: str
    sample_rate: int
    channels: int
    damaged_packets: int = 0
    fine: bool = False


@dataclass(frozen=True, slots=True)
class DecodedAudio:
    """samples: [n, channels] at 16 kHz; one channel when mixed. May be mapped from a file.

    speech: of each channel, in order; empty unless it was looked for, which took vad_seconds. Of a part of
    a recording, only what ended in it.
    """

    samples: Samples
    info: AudioInfo
    speech: tuple[tuple[Stretch, ...], ...] = ()
    vad_seconds: float = 0.0

    @property
    def num_channels(self) -> int:
        return int(self.samples.shape[1])

    @property
    def seconds(self) -> float:
        return len(self.samples) / SAMPLE_RATE

    def channel(self, index: int = 0) -> Samples:
        """Samples [n] of one channel."""
        return self.samples[:, index]
