"""Decodes one recording, frame by frame, to 16 kHz float32 with every limit checked on the way.

Runs inside worker processes: a decoder of foreign bytes must not share memory or fate with the server.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from typing import BinaryIO

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer

from gateway.audio.errors import (
    AudioTooLarge,
    AudioTooLong,
    DecodingTooSlow,
    EmptyAudio,
    UndecodableAudio,
)
from gateway.audio.types import (
    SAMPLE_RATE,
    AudioInfo,
    DecodedAudio,
    DecodeLimits,
    DecodeOptions,
    FloatArray,
    RawFormat,
)
from gateway.audio.wav import PcmWav, find_pcm16

# No playlist or concatenation formats: those name other files and addresses.
_FORMATS = "wav,w64,mp3,flac,ogg,mov,matroska,aac,amr,au,aiff,caf"
_CODECS = (
    "pcm_s16le,pcm_s16be,pcm_s24le,pcm_s24be,pcm_s32le,pcm_s32be,pcm_u8,pcm_s8,pcm_f32le,pcm_f32be,"
    "pcm_f64le,pcm_f64be,pcm_alaw,pcm_mulaw,adpcm_ms,adpcm_ima_wav,adpcm_ima_qt,gsm_ms,g726,mp3,mp3float,"
    "flac,vorbis,opus,libopus,aac,aac_fixed,alac,amrnb,amrwb"
)
_OPTIONS = {"format_whitelist": _FORMATS, "codec_whitelist": _CODECS, "protocol_whitelist": "none"}
_BLOCK_FRAMES = 1 << 20
# Samples per resampled frame: large, because every frame passes through Python.
_OUT_FRAME = 1 << 15
# A stream of nothing but damage is given up on.
_MAX_DAMAGED_IN_A_ROW = 100


class Decoding:
    """Iterates over one recording's samples in blocks, float32 [n, channels] at 16 kHz.

    `info` is complete once the iteration has ended. Raises AudioError subclasses.
    """

    def __init__(self, file: BinaryIO, options: DecodeOptions, limits: DecodeLimits) -> None:
        self._file = file
        self._options = options
        self._limits = limits
        self._size = file.seek(0, io.SEEK_END)
        self._deadline = time.monotonic() + limits.max_decode_seconds
        self._out_frames = 0
        self._source_samples = 0
        self._damaged = 0
        self.info = AudioInfo("", "", 0, 0)

    def __iter__(self) -> Iterator[FloatArray]:
        if self._size > self._limits.max_bytes:
            raise AudioTooLarge(f"{self._size} bytes exceed the limit of {self._limits.max_bytes}")
        if self._size == 0:
            raise EmptyAudio("the recording is empty")
        wav = None if self._options.raw else find_pcm16(self._file, self._size)
        self._file.seek(0)
        for block in self._pcm16_blocks(wav) if wav else self._container_blocks():
            self._count_out(len(block))
            if len(block):
                yield block
        if not self._out_frames:
            raise EmptyAudio("the recording has no samples")

    def _pcm16_blocks(self, wav: PcmWav) -> Iterator[FloatArray]:
        self._check_channels(wav.channels)
        self.info = AudioInfo("wav", "pcm_s16le", SAMPLE_RATE, wav.channels)
        self._file.seek(wav.offset)
        for first in range(0, wav.num_frames, _BLOCK_FRAMES):
            frames = min(_BLOCK_FRAMES, wav.num_frames - first)
            data = self._file.read(frames * wav.channels * 2)
            pcm = np.frombuffer(data, dtype="<i2").reshape(-1, wav.channels)
            self._count_source(pcm.size)
            yield self._mixed(pcm.astype(np.float32) / np.float32(32768.0))

    def _container_blocks(self) -> Iterator[FloatArray]:
        try:
            with _open(self._file, self._options.raw) as container:
                if not container.streams.audio:
                    raise UndecodableAudio("the file holds no audio stream")
                stream = container.streams.audio[0]
                if stream.codec_context is None:
                    raise UndecodableAudio("the audio codec is not supported")
                stream.codec_context.thread_count = 1
                name = container.format.name.split(",")[0]
                self.info = AudioInfo(name, stream.codec_context.name, stream.rate or 0, stream.channels)
                yield from self._resampled(self._frames(container, stream))
        except av.error.FFmpegError as error:
            raise UndecodableAudio(f"the audio cannot be decoded: {_reason(error)}") from error

    def _frames(self, container: InputContainer, stream: AudioStream) -> Iterator[AudioFrame]:
        """Frames in order; damaged packets are left out, and a broken end ends the recording."""
        damaged_in_a_row = 0
        for packet in self._packets(container, stream):
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                damaged_in_a_row += 1
                self._note_damage()
                if damaged_in_a_row > _MAX_DAMAGED_IN_A_ROW:
                    raise
                continue
            for frame in frames:
                damaged_in_a_row = 0
                assert isinstance(frame, AudioFrame)
                yield frame

    def _packets(self, container: InputContainer, stream: AudioStream) -> Iterator[av.Packet[AudioStream]]:
        packets = container.demux(stream)
        while True:
            if time.monotonic() > self._deadline:
                raise DecodingTooSlow(f"decoding took longer than {self._limits.max_decode_seconds:g} s")
            try:
                packet = next(packets, None)
            except av.error.FFmpegError:
                if not self._source_samples:
                    raise
                self._note_damage()
                return
            if packet is None:
                return
            yield packet

    def _resampled(self, frames: Iterator[AudioFrame]) -> Iterator[FloatArray]:
        shape: tuple[str, str, int] | None = None
        resampler: av.AudioResampler | None = None
        channels = 0
        for frame in frames:
            self._check_channels(frame.layout.nb_channels)
            self._count_source(frame.samples * frame.layout.nb_channels)
            if shape != (frame.format.name, frame.layout.name, frame.sample_rate):
                if resampler is not None:
                    yield from self._arrays(resampler.resample(None))
                if channels not in (0, frame.layout.nb_channels) and not self._options.mix:
                    raise UndecodableAudio("the number of channels changes within the recording")
                shape = (frame.format.name, frame.layout.name, frame.sample_rate)
                channels = frame.layout.nb_channels
                resampler = av.AudioResampler("fltp", frame.layout, SAMPLE_RATE, _OUT_FRAME)
            assert resampler is not None
            # Only the order of frames counts; timestamps of damaged files go backwards.
            frame.pts = None
            yield from self._arrays(resampler.resample(frame))
        if resampler is not None:
            yield from self._arrays(resampler.resample(None))

    def _arrays(self, frames: list[AudioFrame]) -> Iterator[FloatArray]:
        for frame in frames:
            block = self._mixed(np.asarray(frame.to_ndarray().T, dtype=np.float32))
            # Float recordings may hold anything; the networks must not see it.
            if not np.isfinite(block).all():
                block = np.nan_to_num(block, nan=0.0, posinf=1.0, neginf=-1.0)
            yield block

    def _mixed(self, block: FloatArray) -> FloatArray:
        if not self._options.mix or block.shape[1] == 1:
            return block
        mean: FloatArray = np.mean(block, axis=1, keepdims=True, dtype=np.float32)
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

    def _note_damage(self) -> None:
        self._damaged += 1
        old = self.info
        self.info = AudioInfo(old.container, old.codec, old.sample_rate, old.channels, self._damaged)


def _open(file: BinaryIO, raw: RawFormat | None) -> InputContainer:
    if raw is None:
        return av.open(file, mode="r", options=_OPTIONS, metadata_errors="replace")
    layout = {1: "mono", 2: "stereo"}.get(raw.channels, f"{raw.channels}c")
    options = {"sample_rate": str(raw.sample_rate), "ch_layout": layout, "protocol_whitelist": "none"}
    return av.open(file, mode="r", format=raw.encoding.value, options=options)


def _reason(error: Exception) -> str:
    # FFmpeg's text without the name of the Python object it was read from.
    return error.strerror if isinstance(error, av.error.FFmpegError) and error.strerror else str(error)


def decode(
    data: bytes, options: DecodeOptions | None = None, limits: DecodeLimits | None = None
) -> DecodedAudio:
    """Decodes a recording in this process, into memory. Servers use AudioPool instead."""
    decoding = Decoding(io.BytesIO(data), options or DecodeOptions(), limits or DecodeLimits())
    blocks = list(decoding)
    return DecodedAudio(np.concatenate(blocks), decoding.info)
