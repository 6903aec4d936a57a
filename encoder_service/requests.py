"""From a request stream to one segment of samples, with every limit checked while it arrives."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from encoder_service.messages import CtcOutput
from tandem.encoder.v1 import encoder_pb2 as pb
from tandem.errors import InvalidRequest, LimitExceeded

_SAMPLE_BYTES = {pb.SAMPLE_FORMAT_S16LE: 2, pb.SAMPLE_FORMAT_F32LE: 4}
_CTC = {
    pb.CTC_MODE_UNSPECIFIED: CtcOutput.NONE,
    pb.CTC_MODE_NONE: CtcOutput.NONE,
    pb.CTC_MODE_COMPACT: CtcOutput.COMPACT,
    pb.CTC_MODE_DENSE: CtcOutput.DENSE,
}


Message = TypeVar("Message", pb.EncodeRequest, pb.TranscribeRequest)


async def first(stream: AsyncIterator[Message]) -> Message:
    """The config message that begins every request stream."""
    async for message in stream:
        if message.WhichOneof("payload") != "config":
            raise InvalidRequest.of("config", "must be the first message of the stream")
        return message
    raise InvalidRequest.of("config", "the request stream was empty")


def ctc_output(mode: pb.CtcMode.ValueType) -> CtcOutput:
    if mode not in _CTC:
        raise InvalidRequest.of("config.ctc", f"unknown mode {mode}")
    return _CTC[mode]


@dataclass(slots=True)
class SampleBuffer:
    """Collects the audio of one segment; refuses more than `max_samples` before it is buffered."""

    audio: pb.AudioConfig
    max_samples: int
    _width: int = field(init=False)
    _data: bytearray = field(init=False, default_factory=bytearray)

    def __post_init__(self) -> None:
        width = _SAMPLE_BYTES.get(self.audio.format)
        if width is None:
            raise InvalidRequest.of("config.audio.format", "must be S16LE or F32LE")
        self._width = width
        if self.audio.HasField("num_samples"):
            self._check(self.audio.num_samples)

    def _check(self, samples: int) -> None:
        if samples > self.max_samples:
            raise LimitExceeded(f"{samples} samples exceed the limit of {self.max_samples} a segment")

    def add(self, data: bytes) -> None:
        self._check((len(self._data) + len(data)) // self._width)
        self._data += data

    def samples(self) -> npt.NDArray[np.float32]:
        """float32 [n] in [-1, 1]; InvalidRequest when bytes are missing or left over."""
        count, rest = divmod(len(self._data), self._width)
        if rest:
            raise InvalidRequest.of("audio", f"{len(self._data)} bytes are not whole samples")
        if self.audio.HasField("num_samples") and count != self.audio.num_samples:
            raise InvalidRequest.of(
                "audio", f"{count} samples arrived, {self.audio.num_samples} were announced"
            )
        if self.audio.format == pb.SAMPLE_FORMAT_S16LE:
            pcm = np.frombuffer(self._data, "<i2")
            scaled: npt.NDArray[np.float32] = np.multiply(pcm, np.float32(1 / 32768), dtype=np.float32)
            return scaled
        return np.frombuffer(self._data, "<f4").astype(np.float32)


async def read_samples(
    audio: pb.AudioConfig, stream: AsyncIterator[Message], max_samples: int
) -> npt.NDArray[np.float32]:
    """All samples of the stream after its config."""
    buffer = SampleBuffer(audio, max_samples)
    async for message in stream:
        if message.WhichOneof("payload") != "audio":
            raise InvalidRequest.of("audio", "only audio may follow the config")
        buffer.add(message.audio)
    return buffer.samples()
