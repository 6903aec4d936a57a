"""The fast path: 16-bit PCM WAV at 16 kHz is what clients mostly send, and needs no decoder."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

from gateway.audio.types import SAMPLE_RATE

_PCM = 1
_EXTENSIBLE = 0xFFFE
# WAVE_FORMAT_EXTENSIBLE: the last 14 bytes of every "sub-format" GUID that is a plain format code.
_GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")
_MAX_CHUNKS = 64


@dataclass(frozen=True, slots=True)
class PcmWav:
    """Where the samples of a 16 kHz, 16-bit PCM file lie: interleaved little-endian frames."""

    offset: int
    num_frames: int
    channels: int


def _is_pcm16(body: bytes) -> bool:
    if len(body) < 16:
        return False
    code, _, rate, _, _, bits = struct.unpack_from("<HHIIHH", body)
    if code == _EXTENSIBLE:
        code = struct.unpack_from("<H", body, 24)[0] if len(body) >= 40 and body[26:40] == _GUID_TAIL else 0
    return bool(code == _PCM and bits == 16 and rate == SAMPLE_RATE)


def find_pcm16(file: BinaryIO, size: int) -> PcmWav | None:
    """The samples of a file of `size` bytes, or None when it is anything but 16 kHz 16-bit PCM WAV."""
    file.seek(0)
    header = file.read(12)
    if len(header) < 12 or header[:4] != b"RIFF" or header[8:] != b"WAVE":
        return None
    channels = 0
    for _ in range(_MAX_CHUNKS):
        tag = file.read(8)
        if len(tag) < 8:
            return None
        name, length = struct.unpack("<4sI", tag)
        start = file.tell()
        if name == b"fmt ":
            body = file.read(min(length, 64))
            if not _is_pcm16(body):
                return None
            channels = struct.unpack_from("<H", body, 2)[0]
        elif name == b"data":
            # Recorders that stream leave the length 0 or at its maximum: then the rest is audio.
            known = length if 0 < length <= size - start else size - start
            return PcmWav(start, known // (2 * channels), channels) if channels else None
        file.seek(start + length + length % 2)
    return None
