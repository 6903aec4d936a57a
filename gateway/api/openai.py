"""OpenAI's transcription API: POST /v1/audio/transcriptions and GET /v1/models."""

from __future__ import annotations

import contextlib
import json
import re
import time
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import Field, field_validator
from starlette.responses import Response

from gateway.api import examples
from gateway.api.disconnect import until_disconnect
from gateway.api.errors import request_id
from gateway.api.examples import answers
from gateway.api.forms import RecognitionForm, form_body, parse_form, split_terms
from gateway.api.openai_format import respond
from gateway.api.sse import EventResponse, results_in_order, transcript_events
from gateway.api.upload import Upload, receive_form
from gateway.pipeline import Recognizer
from gateway.service import GatewayService
from tandem.errors import InvalidRequest, NotFound
from tandem.results import RecognizeOptions

_STARTED = int(time.time())
_STREAMED = ("json", "text", "diarized_json")
_MAX_PROMPT_TERM = 40
_SENTENCE = re.compile(r"[.!?。！？]\s*$|[.!?。！？]\s")


def prompt_terms(prompt: str) -> tuple[str, ...]:
    """Hotwords out of OpenAI's `prompt`: its comma-separated terms.

    Sentences, and pieces longer than 40 characters, are context and not terms; the model has no place for
    context, so they are left out.
    """
    return tuple(
        term for term in split_terms(prompt) if len(term) <= _MAX_PROMPT_TERM and not _SENTENCE.search(term)
    )


class TranscriptionForm(RecognitionForm):
    """OpenAI's fields, the guide's `spk`, and those of POST /asr."""

    model: str = Field("fun-asr-nano", description="Any name: this server has one model and uses it.")
    response_format: Literal["json", "text", "verbose_json", "srt", "vtt", "diarized_json"] = Field("json")
    timestamp_granularities: list[Literal["word", "segment"]] = Field(
        ["word"], description="Of verbose_json: `word` adds words to the segments and on top."
    )
    stream: bool = Field(
        False, description="Server-sent events, one per finished segment; with json, text, diarized_json."
    )
    prompt: str = Field("", description="Comma-separated terms become hotwords; sentences are ignored.")
    keywords: list[str] = Field([], description="Words or phrases that are likely to occur.")
    temperature: float = Field(0.0, ge=0, le=2, description="Accepted; decoding is greedy whatever it is.")
    chunking_strategy: str | dict[str, str] | None = Field(
        None, description='"auto", or {"type": "server_vad", "silence_duration_ms": 500}.'
    )
    include: list[str] = Field([], description="Nothing can be included: log probabilities are unknown.")
    known_speaker_names: list[str] = Field([], description="Not supported.")

    @field_validator("include", "known_speaker_names")
    @classmethod
    def _unsupported(cls, value: list[str]) -> list[str]:
        if value:
            raise ValueError("is not supported by this server")
        return value

    def recognize_options(self, request: str) -> RecognizeOptions:
        """What to recognise: terms of all kinds together are the hotwords."""
        if self.stream and self.response_format not in _STREAMED:
            raise InvalidRequest.of("response_format", f"with stream=true must be one of {_STREAMED}")
        terms = (*split_terms(self.hotwords), *self.keywords, *prompt_terms(self.prompt))
        subtitles = self.response_format in ("srt", "vtt")
        verbose = self.response_format == "verbose_json" and "word" in self.timestamp_granularities
        return self.options(
            request,
            hotwords=tuple(dict.fromkeys(terms)),
            word_times=subtitles or verbose,
            speakers=self.spk or self.response_format == "diarized_json",
            **self._chunking(),
        )

    def _chunking(self) -> dict[str, Any]:
        strategy: Any = self.chunking_strategy
        if strategy in (None, "auto"):
            return {}
        try:
            strategy = json.loads(strategy) if isinstance(strategy, str) else strategy
            if strategy["type"] != "server_vad":
                raise ValueError
            silence = strategy.get("silence_duration_ms")
            return (
                {} if silence is None else {"dynamic_silence": False, "fixed_silence": float(silence) / 1000}
            )
        except (TypeError, KeyError, ValueError, OverflowError, RecursionError) as error:
            expected = 'must be "auto" or {"type": "server_vad", "silence_duration_ms": 500}'
            raise InvalidRequest.of("chunking_strategy", expected) from error


def openai_router(service: GatewayService) -> APIRouter:
    """The routes, over the recognizer of `service`."""
    router = APIRouter(prefix="/v1", tags=["OpenAI"])

    @router.post(
        "/audio/transcriptions",
        summary="Transcribe a recording (OpenAI)",
        response_model=None,
        responses=answers(examples.VERBOSE, texts=True),
        openapi_extra=form_body(TranscriptionForm),
    )
    async def transcriptions(request: Request) -> Response:
        """json, text, verbose_json, srt, vtt or diarized_json; with `stream=true` server-sent events.

        `language` is null in verbose_json when the request names none: the model does not report it.
        """
        recognizer = service.ready()
        async with contextlib.AsyncExitStack() as resources:
            form_context = receive_form(request, service.limits.max_audio_bytes)
            upload = await resources.enter_async_context(form_context)
            form = parse_form(TranscriptionForm, upload.fields)
            options = form.recognize_options(request_id(request.scope))
            if form.stream:
                return await _stream(recognizer, request, upload, form, options, resources)
            work = recognizer.recognize(upload.audio, options)
            transcript = await until_disconnect(request, work)
        return respond(transcript, form.response_format, form.timestamp_granularities)

    @router.get("/models", summary="The served model")
    async def models() -> dict[str, Any]:
        """One model. Transcriptions accept any model name."""
        return {"object": "list", "data": [_model(service.ready())]}

    @router.get("/models/{name:path}", summary="One model by its id")
    async def model(name: str) -> dict[str, Any]:
        """The served model; 404 for other ids."""
        served = _model(service.ready())
        if name != served["id"]:
            raise NotFound(f"the model {name!r} does not exist; this server has {served['id']!r}")
        return served

    return router


async def _stream(
    recognizer: Recognizer,
    request: Request,
    upload: Upload,
    form: TranscriptionForm,
    options: RecognizeOptions,
    resources: contextlib.AsyncExitStack,
) -> EventResponse:
    """Waits for the first event, so that a request that fails at once gets a proper status."""
    results = results_in_order(recognizer, upload.audio, options)
    resources.push_async_callback(results.aclose)
    events = transcript_events(results, diarize=form.response_format == "diarized_json")
    first = await until_disconnect(request, anext(events))
    return EventResponse(first, events, resources.pop_all())


def _model(recognizer: Recognizer) -> dict[str, Any]:
    name = recognizer.model.public_name
    return {"id": name, "object": "model", "created": _STARTED, "owned_by": "tandem"}
