"""POST /asr: the offline route of the FunASR vLLM guide, section 5.3, field for field."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field

from gateway.api import examples
from gateway.api.disconnect import until_disconnect
from gateway.api.errors import request_id
from gateway.api.examples import answers
from gateway.api.forms import RecognitionForm, form_body, parse_form
from gateway.api.upload import receive_form
from gateway.service import GatewayService
from tandem.results import Segment, TimestampSource, Transcript, Word


class AsrForm(RecognitionForm):
    """`file`, `language`, `hotwords`, `spk` and `timestamp` are the guide's; all others are optional."""

    timestamp: bool = Field(True, description="Report times of words (characters in Chinese).")
    details: bool = Field(False, description="Add word scores, seconds per stage and the request id.")


def asr_router(service: GatewayService) -> APIRouter:
    """The route, over the recognizer of `service`."""
    router = APIRouter(tags=["FunASR"])

    @router.post(
        "/asr",
        summary="Transcribe a recording",
        responses=answers(examples.ASR),
        openapi_extra=form_body(AsrForm),
    )
    async def asr(request: Request) -> dict[str, Any]:
        """Text, segments and word times in seconds.

        `words` and `timestamp_source` say where times come from: `ctc`, or `none` where the model has no
        CTC branch or `timestamp=false`. `speaker` is there with `spk=true`, `channel` with
        `separate_channels=true`. `rtf` is processing time over duration.
        """
        recognizer = service.ready()
        async with receive_form(request, service.limits.max_audio_bytes) as upload:
            form = parse_form(AsrForm, upload.fields)
            options = form.options(request_id(request.scope), word_times=form.timestamp)
            work = recognizer.recognize(upload.audio, options)
            transcript = await until_disconnect(request, work)
        return asr_response(transcript, details=form.details)

    return router


def asr_response(transcript: Transcript, *, details: bool = False) -> dict[str, Any]:
    """The JSON of POST /asr. Times are seconds, rounded to milliseconds."""
    timed = transcript.timestamp_source is not TimestampSource.NONE
    body: dict[str, Any] = {
        "text": transcript.text,
        "segments": [_segment(segment, timed=timed, details=details) for segment in transcript.segments],
        "duration": round(transcript.duration, 3),
        "processing_time": round(transcript.timing.total, 3),
        "rtf": round(transcript.rtf, 4),
        "timestamp_source": transcript.timestamp_source.value,
    }
    if details:
        timing = transcript.timing
        stages = {name: round(getattr(timing, name), 6) for name in timing.__dataclass_fields__}
        body |= {"language": transcript.language, "timing": stages, "request_id": transcript.request_id}
    return body


def _segment(segment: Segment, *, timed: bool, details: bool) -> dict[str, Any]:
    body: dict[str, Any] = {
        "text": segment.text,
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
    }
    body |= who(segment)
    if timed:
        body["words"] = [word_json(word, score=details) for word in segment.words]
    return body


def who(segment: Segment) -> dict[str, Any]:
    """`speaker` and `channel`, counted from 1, where those were told apart."""
    found = {"speaker": segment.speaker, "channel": segment.channel or None}
    return {name: value for name, value in found.items() if value is not None}


def word_json(word: Word, *, score: bool = False) -> dict[str, Any]:
    """`{"word", "start", "end"}`, and on demand the alignment score."""
    body: dict[str, Any] = {"word": word.text, "start": round(word.start, 3), "end": round(word.end, 3)}
    return {**body, "score": round(word.score, 4)} if score else body
