"""What every way of decoding a recording shares: blocks of samples, with every limit checked on the way."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from gateway.audio.errors import AudioTooLarge, AudioTooLong, DecodingTooSlow, EmptyAudio
from gateway.audio.types import (
    SAMPLE_RATE,
    AudioInfo,
    DecodeLimits,
    DecodeOptions,
    FloatArray,
    Samples,
    to_float,
)


class Decoding(ABC):
    """Iterates over one recording's samples in blocks [n, channels] at 16 kHz.

    `info` is complete once the iteration has ended. Raises AudioError subclasses.
    """

    def __init__(self, file: BinaryIO, options: DecodeOptions, limits: DecodeLimits) -> None:
        self._file = file
        self._options = options
        self._limits = limits
        self._deadline = time.monotonic() + limits.max_decode_seconds
        self._out_frames = 0
        self._source_samples = 0
        self.info = AudioInfo("", "", 0, 0)

    def __iter__(self) -> Iterator[Samples]:
        for block in self._blocks():
            self._count_out(len(block))
            if len(block):
                yield block
        if not self._out_frames:
            raise EmptyAudio("the recording has no samples")

    @abstractmethod
    def _blocks(self) -> Iterator[Samples]:
        """The samples, the file being at its start."""

    def _mixed(self, block: Samples) -> Samples:
        if not self._options.mix or block.shape[1] == 1:
            return block
        mean: FloatArray = np.mean(to_float(block), axis=1, keepdims=True, dtype=np.float32)
        return mean

    def _check_channels(self, channels: int) -> None:
        if channels > self._limits.max_channels:
            raise AudioTooLarge(f"{channels} channels exceed the limit of {self._limits.max_channels}")

    def _count_source(self, samples: int) -> None:
        self._source_samples += samples
        if self._source_samples > self._limits.max_samples:
            raise AudioTooLarge(f"more than {self._limits.max_samples} samples")

    def _count_out(self, frames: int) -> None:
        self._out_frames += frames
        if self._out_frames > self._limits.max_seconds * SAMPLE_RATE:
            raise AudioTooLong(f"longer than the limit of {self._limits.max_seconds:g} s")

    def _check_time(self) -> None:
        if time.monotonic() > self._deadline:
            raise DecodingTooSlow(f"decoding took longer than {self._limits.max_decode_seconds:g} s")
