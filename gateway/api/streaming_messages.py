"""Between the live session's events and the messages of StreamingRecognize."""

from __future__ import annotations

from dataclasses import replace

from gateway.audio.live import LiveDecoder, OpusDecoder, RawDecoder
from gateway.audio.types import RawEncoding
from gateway.session.config import PartialPolicy, SessionOptions
from gateway.session.events import (
    CheckpointReached,
    Cursors,
    Ended,
    EndReason,
    Final,
    Partial,
    Refined,
    SpeechBegan,
    SpeechEnded,
    Update,
)
from gateway.session.live import LiveSession
from tandem.asr.v1 import asr_pb2 as pb
from tandem.convert import config_to_options, segment_to_message
from tandem.errors import InvalidRequest
from tandem.rpc.durations import duration

_RAW = {
    pb.AUDIO_ENCODING_UNSPECIFIED: RawEncoding.S16LE,
    pb.AUDIO_ENCODING_LINEAR16: RawEncoding.S16LE,
    pb.AUDIO_ENCODING_MULAW: RawEncoding.MULAW,
    pb.AUDIO_ENCODING_ALAW: RawEncoding.ALAW,
}
_REASONS = {
    EndReason.CLIENT: pb.SessionEnded.REASON_CLIENT,
    EndReason.IDLE: pb.SessionEnded.REASON_IDLE,
    EndReason.MAX_DURATION: pb.SessionEnded.REASON_MAX_DURATION,
    EndReason.DRAIN: pb.SessionEnded.REASON_DRAIN,
}


def session_options(config: pb.StreamingConfig, partials: PartialPolicy) -> SessionOptions:
    """What the client asks of a new session; InvalidRequest names the field that makes no sense."""
    policy = replace(partials, at_checkpoints=config.interim.at_checkpoints)
    if config.HasField("interim_results") and not config.interim_results:
        policy = replace(policy, enabled=False)
    if config.interim.HasField("rollback_chars"):
        policy = replace(policy, rollback_chars=config.interim.rollback_chars)
    recognize = config_to_options(config.recognition)
    if recognize.separate_channels:
        raise InvalidRequest.of("config.separate_channels", "live audio has one channel")
    client_endpoint = config.recognition.endpoint.client_endpoint or not recognize.vad
    return SessionOptions(recognize, client_endpoint=client_endpoint, partials=policy)


def decoder_for(config: pb.StreamingConfig) -> LiveDecoder:
    """The decoder of the announced format."""
    if config.encoding == pb.AUDIO_ENCODING_CONTAINER_OPUS:
        return OpusDecoder()
    if config.encoding not in _RAW:
        raise InvalidRequest.of("config.encoding", f"unknown encoding {config.encoding}")
    rate = config.sample_rate_hertz if config.HasField("sample_rate_hertz") else 16_000
    try:
        return RawDecoder(_RAW[config.encoding], rate)
    except ValueError as error:
        raise InvalidRequest.of("config.sample_rate_hertz", str(error)) from error


def cursors_message(cursors: Cursors) -> pb.AudioCursors:
    return pb.AudioCursors(
        received=duration(cursors.received),
        decoded=duration(cursors.decoded),
        final=duration(cursors.final),
    )


def started(session: LiveSession, token: str) -> pb.StreamingRecognizeResponse:
    """The first message of every call, resumed ones included."""
    return pb.StreamingRecognizeResponse(
        started=pb.SessionStarted(session_id=session.id, resume_token=token),
        cursors=cursors_message(session.cursors),
    )


def updated(cursors: Cursors) -> pb.StreamingRecognizeResponse:
    """Nothing but the cursors."""
    return pb.StreamingRecognizeResponse(progress=pb.Progress(), cursors=cursors_message(cursors))


def response(update: Update, *, interim: bool) -> pb.StreamingRecognizeResponse | None:
    """The message of an update; None for a partial when the client wants none."""
    event = update.event
    message = pb.StreamingRecognizeResponse(cursors=cursors_message(update.cursors))
    if isinstance(event, Partial):
        if not interim:
            return None
        message.result.CopyFrom(_partial(event))
    elif isinstance(event, Final):
        message.result.CopyFrom(
            pb.StreamingResult(
                index=event.index,
                is_final=True,
                segment=segment_to_message(event.segment),
                parts=map(segment_to_message, event.parts),
            )
        )
    elif isinstance(event, Refined):
        message.refinement.CopyFrom(
            pb.FinalRefinement(
                index=event.index,
                segment=segment_to_message(event.segment),
                parts=map(segment_to_message, event.parts),
            )
        )
    elif isinstance(event, SpeechBegan):
        message.speech.CopyFrom(_speech(pb.SpeechEvent.TYPE_BEGIN, event))
    elif isinstance(event, SpeechEnded):
        message.speech.CopyFrom(_speech(pb.SpeechEvent.TYPE_END, event))
    elif isinstance(event, CheckpointReached):
        message.checkpoint.CopyFrom(pb.CheckpointReached(id=event.number))
    elif isinstance(event, Ended):
        ended = pb.SessionEnded(audio_duration=duration(event.duration), reason=_REASONS[event.reason])
        message.ended.CopyFrom(ended)
    return message


def _speech(kind: pb.SpeechEvent.Type.ValueType, event: SpeechBegan | SpeechEnded) -> pb.SpeechEvent:
    return pb.SpeechEvent(type=kind, offset=duration(event.at), index=event.index)


def _partial(event: Partial) -> pb.StreamingResult:
    return pb.StreamingResult(
        index=event.index,
        segment=pb.Segment(text=event.text, start=duration(event.start), end=duration(event.end)),
        fixed_text=event.fixed,
        unfixed_text=event.unfixed,
        stability=event.stability,
    )
