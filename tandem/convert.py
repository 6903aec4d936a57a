"""Between the dataclasses of tandem.results and the messages of tandem.asr.v1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields

from tandem.asr.v1 import asr_pb2 as pb
from tandem.errors import InvalidRequest
from tandem.results import (
    RecognizeOptions,
    Segment,
    SilenceStep,
    TimestampSource,
    Timing,
    Transcript,
    Word,
)
from tandem.rpc.durations import duration, seconds

MAX_HOTWORDS = 2_000
MAX_HOTWORD_CHARACTERS = 16_384
"""Of all hotwords together: a multiple of what the models' prompts were trained with."""
_MAX_LANGUAGE = 64
_MAX_SPEAKERS = 1_000
_MAX_NEW_TOKENS = 100_000

_SOURCES = {
    TimestampSource.NONE: pb.TIMESTAMP_SOURCE_NONE,
    TimestampSource.CTC: pb.TIMESTAMP_SOURCE_CTC,
}


def options_to_config(options: RecognizeOptions) -> pb.RecognitionConfig:
    """The message of a request; InvalidRequest names the first field that makes no sense."""
    # Before protobuf says "Value out of range", of which field it does not say.
    check_options(options)
    endpoint = pb.EndpointConfig(
        dynamic_silence=options.dynamic_silence,
        silence_schedule=[_step_to_message(step) for step in options.silence_schedule],
        fixed_silence=duration(options.fixed_silence),
        max_segment=None if options.max_segment is None else duration(options.max_segment),
    )
    return pb.RecognitionConfig(
        language=options.language,
        hotwords=options.hotwords,
        itn=options.itn,
        vad=options.vad,
        word_times=options.word_times,
        speakers=pb.SpeakerConfig(enabled=options.speakers, num_speakers=options.num_speakers),
        endpoint=endpoint,
        max_new_tokens=options.max_new_tokens,
        separate_channels=options.separate_channels,
        details=options.details,
        request_id=options.request_id,
    )


def config_to_options(config: pb.RecognitionConfig) -> RecognizeOptions:
    """The options of a request; InvalidRequest names the first field that makes no sense."""
    endpoint, defaults = config.endpoint, RecognizeOptions()
    options = RecognizeOptions(
        language=config.language if config.HasField("language") else None,
        hotwords=tuple(config.hotwords),
        itn=config.itn if config.HasField("itn") else defaults.itn,
        vad=config.vad if config.HasField("vad") else defaults.vad,
        word_times=config.word_times if config.HasField("word_times") else defaults.word_times,
        speakers=config.speakers.enabled,
        num_speakers=config.speakers.num_speakers if config.speakers.HasField("num_speakers") else None,
        dynamic_silence=endpoint.dynamic_silence if endpoint.HasField("dynamic_silence") else True,
        silence_schedule=tuple(_step_from_message(step) for step in endpoint.silence_schedule),
        fixed_silence=seconds(endpoint.fixed_silence)
        if endpoint.HasField("fixed_silence")
        else defaults.fixed_silence,
        max_segment=seconds(endpoint.max_segment) if endpoint.HasField("max_segment") else None,
        max_new_tokens=config.max_new_tokens if config.HasField("max_new_tokens") else None,
        separate_channels=config.separate_channels,
        details=config.details,
        request_id=config.request_id,
    )
    check_options(options)
    return options


def check_options(options: RecognizeOptions) -> None:
    """Raise InvalidRequest for values that can never work."""
    check_terms(options.language, options.hotwords)
    for field, value, most in (
        ("config.speakers.num_speakers", options.num_speakers, _MAX_SPEAKERS),
        ("config.max_new_tokens", options.max_new_tokens, _MAX_NEW_TOKENS),
    ):
        if value is not None and not 1 <= value <= most:
            raise InvalidRequest.of(field, f"must be between 1 and {most}")
    if options.max_segment is not None and not 1 <= options.max_segment < math.inf:
        raise InvalidRequest.of("config.endpoint.max_segment", "must be at least 1 s")
    if not 0 < options.fixed_silence < math.inf:
        raise InvalidRequest.of("config.endpoint.fixed_silence", "must be positive")
    limits = [step.max_speech for step in options.silence_schedule]
    silences = [step.silence for step in options.silence_schedule]
    if limits != sorted(set(limits)) or not all(0 < silence < math.inf for silence in silences):
        raise InvalidRequest.of(
            "config.endpoint.silence_schedule", "needs ascending max_speech and positive silence"
        )
    if limits and limits[-1] != math.inf:
        raise InvalidRequest.of(
            "config.endpoint.silence_schedule", "the last step must leave max_speech unset"
        )


def check_terms(language: str | None, hotwords: Sequence[str]) -> None:
    """Raise InvalidRequest for a language or hotwords too long for any prompt."""
    if language is not None and len(language) > _MAX_LANGUAGE:
        raise InvalidRequest.of("config.language", f"must have at most {_MAX_LANGUAGE} characters")
    if len(hotwords) > MAX_HOTWORDS or sum(map(len, hotwords)) > MAX_HOTWORD_CHARACTERS:
        raise InvalidRequest.of(
            "config.hotwords",
            f"must be at most {MAX_HOTWORDS}, with {MAX_HOTWORD_CHARACTERS} characters together",
        )


def _step_to_message(step: SilenceStep) -> pb.SilenceStep:
    limit = None if step.max_speech == math.inf else duration(step.max_speech)
    return pb.SilenceStep(max_speech=limit, silence=duration(step.silence))


def _step_from_message(step: pb.SilenceStep) -> SilenceStep:
    limit = seconds(step.max_speech) if step.HasField("max_speech") else math.inf
    return SilenceStep(limit, seconds(step.silence))


def segment_to_message(segment: Segment) -> pb.Segment:
    return pb.Segment(
        text=segment.text,
        start=duration(segment.start),
        end=duration(segment.end),
        words=[
            pb.Word(text=word.text, start=duration(word.start), end=duration(word.end), score=word.score)
            for word in segment.words
        ],
        speaker=segment.speaker,
        channel_tag=segment.channel,
        prompt_token_ids=segment.prompt_token_ids,
        token_ids=segment.token_ids,
        ctc_text=segment.ctc_text,
    )


def segment_from_message(message: pb.Segment) -> Segment:
    return Segment(
        text=message.text,
        start=seconds(message.start),
        end=seconds(message.end),
        words=tuple(Word(w.text, seconds(w.start), seconds(w.end), round(w.score, 4)) for w in message.words),
        speaker=message.speaker if message.HasField("speaker") else None,
        channel=message.channel_tag,
        prompt_token_ids=tuple(message.prompt_token_ids),
        token_ids=tuple(message.token_ids),
        ctc_text=message.ctc_text if message.HasField("ctc_text") else None,
    )


def transcript_to_response(transcript: Transcript) -> pb.RecognizeResponse:
    timing = {f.name: duration(getattr(transcript.timing, f.name)) for f in fields(Timing)}
    return pb.RecognizeResponse(
        text=transcript.text,
        segments=[segment_to_message(segment) for segment in transcript.segments],
        audio_duration=duration(transcript.duration),
        timestamp_source=_SOURCES[transcript.timestamp_source],
        language=transcript.language,
        timing=pb.RecognizeTiming(**timing),
        request_id=transcript.request_id,
    )


def response_to_transcript(response: pb.RecognizeResponse) -> Transcript:
    by_message = {number: source for source, number in _SOURCES.items()}
    return Transcript(
        text=response.text,
        segments=tuple(segment_from_message(segment) for segment in response.segments),
        duration=seconds(response.audio_duration),
        timestamp_source=by_message.get(response.timestamp_source, TimestampSource.NONE),
        language=response.language if response.HasField("language") else None,
        timing=Timing(**{f.name: seconds(getattr(response.timing, f.name)) for f in fields(Timing)}),
        request_id=response.request_id,
    )
