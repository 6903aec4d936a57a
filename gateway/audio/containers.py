"""Any container and codec that FFmpeg knows, through PyAV, frame by frame.

Imported for such a recording only: a gateway whose clients send 16 kHz WAV and PCM runs without PyAV.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer

from gateway.audio.decoding import Decoding
from gateway.audio.errors import UndecodableAudio
from gateway.audio.types import (
    SAMPLE_RATE,
    AudioInfo,
    DecodeLimits,
    DecodeOptions,
    RawFormat,
    Samples,
    to_float,
)

# No playlist or concatenation formats: those name other files and addresses.
_FORMATS = "wav,w64,mp3,flac,ogg,mov,matroska,aac,amr,au,aiff,caf"
_CODECS = (
    "pcm_s16le,pcm_s16be,pcm_s24le,pcm_s24be,pcm_s32le,pcm_s32be,pcm_u8,pcm_s8,pcm_f32le,pcm_f32be,"
    "pcm_f64le,pcm_f64be,pcm_alaw,pcm_mulaw,adpcm_ms,adpcm_ima_wav,adpcm_ima_qt,gsm_ms,g726,mp3,mp3float,"
    "flac,vorbis,opus,libopus,aac,aac_fixed,alac,amrnb,amrwb"
)
_OPTIONS = {"format_whitelist": _FORMATS, "codec_whitelist": _CODECS, "protocol_whitelist": "none"}
# Samples per resampled frame: large, because every frame passes through Python.
_OUT_FRAME = 1 << 15
# A stream of nothing but damage is given up on.
_MAX_DAMAGED_IN_A_ROW = 100


class ContainerDecoding(Decoding):
    """Decodes a recording with PyAV, or samples without a container that `options.raw` describes."""

    def __init__(self, file: BinaryIO, options: DecodeOptions, limits: DecodeLimits) -> None:
        super().__init__(file, options, limits)
        self._damaged = 0

    def _blocks(self) -> Iterator[Samples]:
        try:
            with _open(self._file, self._options.raw) as container:
                if not container.streams.audio:
                    raise UndecodableAudio("the file holds no audio stream")
                stream = container.streams.audio[0]
                if stream.codec_context is None:
                    raise UndecodableAudio("the audio codec is not supported")
                stream.codec_context.thread_count = 1
                name = container.format.name.split(",")[0]
                self.info = AudioInfo(
                    name,
                    stream.codec_context.name,
                    stream.rate or 0,
                    stream.channels,
                    fine=_is_fine(stream.codec_context.name, stream.format.name),
                )
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
            self._check_time()
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

    def _resampled(self, frames: Iterator[AudioFrame]) -> Iterator[Samples]:
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

    def _arrays(self, frames: list[AudioFrame]) -> Iterator[Samples]:
        for frame in frames:
            block = to_float(self._mixed(np.asarray(frame.to_ndarray().T, dtype=np.float32)))
            # Float recordings may hold anything; the networks must not see it.
            if not np.isfinite(block).all():
                block = np.nan_to_num(block, nan=0.0, posinf=1.0, neginf=-1.0)
            yield block

    def _note_damage(self) -> None:
        self._damaged += 1
        self.info = replace(self.info, damaged_packets=self._damaged)


def _is_fine(codec: str, sample_format: str) -> bool:
    """Whether samples are lossless and wider than 16 bits; what lossy codecs decode to is no wider."""
    return codec.startswith(("pcm_", "flac", "alac")) and sample_format[:3] in ("s32", "flt", "dbl")


def _open(file: BinaryIO, raw: RawFormat | None) -> InputContainer:
    if raw is None:
        return av.open(file, mode="r", options=_OPTIONS, metadata_errors="replace")
    layout = {1: "mono", 2: "stereo"}.get(raw.channels, f"{raw.channels}c")
    options = {"sample_rate": str(raw.sample_rate), "ch_layout": layout, "protocol_whitelist": "none"}
    return av.open(file, mode="r", format=raw.encoding.value, options=options)


def _reason(error: Exception) -> str:
    # FFmpeg's text without the name of the Python object it was read from.
    return error.strerror if isinstance(error, av.error.FFmpegError) and error.strerror else str(error)
