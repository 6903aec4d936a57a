"""Between the live SDK's options and events and the messages of StreamingRecognize."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import TYPE_CHECKING

from tandem.asr.v1 import asr_pb2 as pb
from tandem.convert import options_to_config, segment_from_message
from tandem.live_events import (
    CheckpointReached,
    Ended,
    EndReason,
    Final,
    LiveEvent,
    Partial,
    Refined,
    SpeechBegan,
    SpeechEnded,
)
from tandem.results import Segment
from tandem.rpc.durations import seconds

if TYPE_CHECKING:
    from tandem.streaming_client import StreamOptions

_REASONS = {
    pb.SessionEnded.REASON_IDLE: EndReason.IDLE,
    pb.SessionEnded.REASON_MAX_DURATION: EndReason.MAX_DURATION,
    pb.SessionEnded.REASON_DRAIN: EndReason.DRAIN,
}


class Encoding(Enum):
    """What the bytes of live audio are."""

    LINEAR16 = "linear16"
    MULAW = "mulaw"
    ALAW = "alaw"
    OPUS = "opus"

    @property
    def message(self) -> pb.AudioEncoding.ValueType:
        return _ENCODINGS[self]

    def bytes_per_second(self, sample_rate: int) -> int:
        """0 where bytes say nothing about time."""
        return {Encoding.LINEAR16: 2, Encoding.OPUS: 0}.get(self, 1) * sample_rate


_ENCODINGS = {
    Encoding.LINEAR16: pb.AUDIO_ENCODING_LINEAR16,
    Encoding.MULAW: pb.AUDIO_ENCODING_MULAW,
    Encoding.ALAW: pb.AUDIO_ENCODING_ALAW,
    Encoding.OPUS: pb.AUDIO_ENCODING_CONTAINER_OPUS,
}


def streaming_config(options: StreamOptions) -> pb.StreamingConfig:
    """The first message of a call."""
    recognition = options_to_config(options.recognize)
    recognition.endpoint.client_endpoint = options.client_endpoint
    interim = pb.InterimConfig(at_checkpoints=options.at_checkpoints, rollback_chars=options.rollback_chars)
    return pb.StreamingConfig(
        recognition=recognition,
        encoding=options.encoding.message,
        sample_rate_hertz=options.sample_rate,
        interim_results=options.interim,
        interim=interim,
    )


def event_of(response: pb.StreamingRecognizeResponse) -> LiveEvent | None:
    """The event of a response; None where it tells nothing new to a user."""
    kind = response.WhichOneof("event")
    if kind == "result":
        return _result(response.result)
    if kind == "refinement":
        refined = response.refinement
        return Refined(refined.index, segment_from_message(refined.segment), _parts(refined.parts))
    if kind == "speech":
        at = seconds(response.speech.offset)
        begins = response.speech.type == pb.SpeechEvent.TYPE_BEGIN
        return SpeechBegan(response.speech.index, at) if begins else SpeechEnded(response.speech.index, at)
    if kind == "checkpoint":
        return CheckpointReached(response.checkpoint.id)
    if kind == "ended":
        ended = response.ended
        return Ended(_REASONS.get(ended.reason, EndReason.CLIENT), seconds(ended.audio_duration))
    return None


def _parts(messages: Iterable[pb.Segment]) -> tuple[Segment, ...]:
    return tuple(segment_from_message(message) for message in messages)


def _result(result: pb.StreamingResult) -> LiveEvent:
    segment = segment_from_message(result.segment)
    if result.is_final:
        return Final(result.index, segment, _parts(result.parts))
    return Partial(
        index=result.index,
        start=segment.start,
        end=segment.end,
        fixed=result.fixed_text,
        unfixed=result.unfixed_text,
        stability=result.stability,
    )
