"""Decodes one recording, block by block, to 16 kHz with every limit checked on the way.

Runs inside worker processes: a decoder of foreign bytes must not share memory or fate with the server.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from gateway.audio.decoding import Decoding
from gateway.audio.errors import AudioTooLarge, EmptyAudio
from gateway.audio.types import (
    SAMPLE_RATE,
    AudioInfo,
    DecodedAudio,
    DecodeLimits,
    DecodeOptions,
    Samples,
    to_float,
)
from gateway.audio.wav import PcmWav, find_pcm16

_BLOCK_FRAMES = 1 << 20


class WavDecoding(Decoding):
    """16-bit PCM at 16 kHz, read as it lies in the file."""

    def __init__(self, wav: PcmWav, file: BinaryIO, options: DecodeOptions, limits: DecodeLimits) -> None:
        super().__init__(file, options, limits)
        self._wav = wav

    def _blocks(self) -> Iterator[Samples]:
        wav = self._wav
        self._check_channels(wav.channels)
        self.info = AudioInfo("wav", "pcm_s16le", SAMPLE_RATE, wav.channels)
        self._file.seek(wav.offset)
        for first in range(0, wav.num_frames, _BLOCK_FRAMES):
            frames = min(_BLOCK_FRAMES, wav.num_frames - first)
            data = self._file.read(frames * wav.channels * 2)
            pcm = np.frombuffer(data, dtype="<i2").reshape(-1, wav.channels)
            self._count_source(pcm.size)
            yield self._mixed(pcm)


def open_recording(file: BinaryIO, options: DecodeOptions, limits: DecodeLimits) -> Decoding:
    """What decodes this recording. Raises AudioTooLarge, EmptyAudio."""
    size = file.seek(0, io.SEEK_END)
    if size > limits.max_bytes:
        raise AudioTooLarge(f"{size} bytes exceed the limit of {limits.max_bytes}")
    if size == 0:
        raise EmptyAudio("the recording is empty")
    wav = None if options.raw else find_pcm16(file, size)
    file.seek(0)
    if wav is not None:
        return WavDecoding(wav, file, options, limits)
    from gateway.audio.containers import ContainerDecoding

    return ContainerDecoding(file, options, limits)


def decode(
    data: bytes, options: DecodeOptions | None = None, limits: DecodeLimits | None = None
) -> DecodedAudio:
    """Decodes a recording in this process, into memory as float32. Servers use AudioPool instead."""
    decoding = open_recording(io.BytesIO(data), options or DecodeOptions(), limits or DecodeLimits())
    blocks = [to_float(block) for block in decoding]
    return DecodedAudio(np.concatenate(blocks), decoding.info)
