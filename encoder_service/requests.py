"""From a request stream to one segment of samples, with every limit checked while it arrives."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

from encoder_service.messages import CtcOutput
from encoder_service.waves import Samples
from tandem.encoder.v1 import encoder_pb2 as pb
from tandem.errors import DeadlineExceeded, InvalidRequest, LimitExceeded

TARGETS_SECONDS = 10.0
"""How long an open call waits for the caller, that has all tokens, to name its targets."""

_SAMPLE_BYTES = {pb.SAMPLE_FORMAT_S16LE: 2, pb.SAMPLE_FORMAT_F32LE: 4}
_CTC = {
    pb.CTC_MODE_UNSPECIFIED: CtcOutput.NONE,
    pb.CTC_MODE_NONE: CtcOutput.NONE,
    pb.CTC_MODE_COMPACT: CtcOutput.COMPACT,
    pb.CTC_MODE_DENSE: CtcOutput.DENSE,
}


Message = TypeVar("Message", pb.EncodeRequest, pb.TranscribeRequest)


@dataclass(frozen=True, slots=True)
class InTime(Generic[Message]):
    """The messages of a stream; DeadlineExceeded where the next does not come within `seconds`."""

    stream: AsyncIterator[Message]
    seconds: float

    def __aiter__(self) -> InTime[Message]:
        return self

    async def __anext__(self) -> Message:
        try:
            async with asyncio.timeout(self.seconds):
                return await anext(self.stream)
        except TimeoutError:
            raise DeadlineExceeded(f"no more of the audio arrived within {self.seconds:g} s") from None


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

    def samples(self) -> Samples:
        """What was added, as `whole` gives it."""
        return self.whole(self._data)

    def whole(self, data: bytes | bytearray) -> Samples:
        """[n], int16 or float32 as they came; InvalidRequest when bytes are missing or left over."""
        count, rest = divmod(len(data), self._width)
        self._check(count)
        if rest:
            raise InvalidRequest.of("audio", f"{len(data)} bytes are not whole samples")
        if self.audio.HasField("num_samples") and count != self.audio.num_samples:
            raise InvalidRequest.of(
                "audio", f"{count} samples arrived, {self.audio.num_samples} were announced"
            )
        if self.audio.format == pb.SAMPLE_FORMAT_S16LE:
            return np.frombuffer(data, "<i2").astype(np.int16, copy=False)
        return np.frombuffer(data, "<f4").astype(np.float32, copy=False)


async def read_samples(
    audio: pb.AudioConfig, stream: AsyncIterator[Message], max_samples: int
) -> tuple[Samples, bool]:
    """All samples of the stream after its config, and whether `audio_end` left it open for targets."""
    buffer = SampleBuffer(audio, max_samples)
    async for message in stream:
        kind = message.WhichOneof("payload")
        if kind == "audio_end":
            return buffer.samples(), True
        if kind != "audio":
            raise InvalidRequest.of("audio", "only audio may follow the config")
        buffer.add(message.audio)
    return buffer.samples(), False


async def read_segment(
    config: pb.TranscribeConfig, stream: AsyncIterator[pb.TranscribeRequest], max_samples: int
) -> tuple[Samples, bool]:
    """As read_samples, for a config that may hold the audio itself."""
    if not config.HasField("whole_audio"):
        return await read_samples(config.audio, stream, max_samples)
    if config.ctc == pb.CTC_MODE_DENSE:
        raise InvalidRequest.of("config.ctc", "must not be dense with whole_audio")
    return SampleBuffer(config.audio, max_samples).whole(config.whole_audio), config.targets_follow


async def read_targets(stream: AsyncIterator[pb.TranscribeRequest], vocab_size: int) -> list[int]:
    """The targets that the caller wants; none when it half-closes or says nothing for a while."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(TARGETS_SECONDS):
            async for message in stream:
                if message.WhichOneof("payload") != "targets":
                    raise InvalidRequest.of("targets", "only targets may follow the end of the audio")
                return checked_targets(list(message.targets.token_ids), vocab_size)
    return []


def checked_targets(targets: list[int], vocab_size: int) -> list[int]:
    field = "targets.token_ids"
    if not targets or len(set(targets)) != len(targets):
        raise InvalidRequest.of(field, "must be distinct, and at least one")
    if min(targets) < 0 or max(targets) >= vocab_size:
        raise InvalidRequest.of(field, f"must lie in the vocabulary of {vocab_size}")
    return targets
