"""The session object of OpenAI's real-time transcription, in its current and its earlier (beta) form."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from gateway.api.openai import prompt_terms
from gateway.api.realtime_openai_events import rejected
from gateway.audio.live import RawDecoder
from gateway.audio.types import RawEncoding
from gateway.session.config import PartialPolicy, SessionOptions
from gateway.vad.schedule import STREAMING_SCHEDULE
from tandem.convert import check_terms
from tandem.errors import InvalidRequest
from tandem.results import RecognizeOptions, SilenceStep

_PCM, _PCMU, _PCMA = "audio/pcm", "audio/pcmu", "audio/pcma"
_EARLIER_FORMATS = {"pcm16": _PCM, "g711_ulaw": _PCMU, "g711_alaw": _PCMA}
_EARLIER_NAMES = {name: earlier for earlier, name in _EARLIER_FORMATS.items()}
# The earlier flat fields, and the field of `audio.input` that each became.
_EARLIER_FIELDS = {
    "input_audio_format": "format",
    "input_audio_transcription": "transcription",
    "input_audio_noise_reduction": "noise_reduction",
    "turn_detection": "turn_detection",
}
_RAW = {_PCM: RawEncoding.S16LE, _PCMU: RawEncoding.MULAW, _PCMA: RawEncoding.ALAW}
_PCM_RATE, _G711_RATE = 24_000, 8_000
# How much longer than the streaming schedule semantic_vad waits; OpenAI's timeouts are 8, 4 and 2 s.
_PATIENCE = {"low": 2.0, "medium": 1.0, "auto": 1.0, "high": 0.5}


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class Format(_Part):
    """What the appended bytes are."""

    type: Literal["audio/pcm", "audio/pcmu", "audio/pcma"] = "audio/pcm"
    rate: int = Field(default=_PCM_RATE, ge=8_000, le=96_000)

    @model_validator(mode="before")
    @classmethod
    def _usual_rate(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("rate") is None:
            return {**value, "rate": _PCM_RATE if value.get("type", _PCM) == _PCM else _G711_RATE}
        return value

    def decoder(self) -> RawDecoder:
        """A fresh decoder of this format."""
        return RawDecoder(_RAW[self.type], self.rate)


class Transcription(_Part):
    """Which model transcribes, and what it should know."""

    model: str | None = None
    language: str | None = None
    languages: list[str] | None = None
    prompt: str | None = None
    keywords: list[str] | None = None

    @model_validator(mode="after")
    def _fit_a_prompt(self) -> Transcription:
        try:
            check_terms(self.only_language, self.hotwords)
        except InvalidRequest as error:
            raise ValueError(str(error)) from error
        return self

    @property
    def only_language(self) -> str | None:
        """None where the model has to find out itself, also which of several it is."""
        named = [self.language] if self.language else self.languages or []
        return named[0] if len(named) == 1 else None

    @property
    def hotwords(self) -> tuple[str, ...]:
        terms = (*(self.keywords or ()), *prompt_terms(self.prompt or ""))
        return tuple(dict.fromkeys(term.strip() for term in terms if term.strip()))


class ServerVad(_Part):
    """So much silence ends a turn. `threshold`: the higher, the surer the detector has to be of speech."""

    type: Literal["server_vad"] = "server_vad"
    threshold: float = Field(default=0.5, ge=0, le=1)
    prefix_padding_ms: int = Field(default=300, ge=0, le=5_000)
    silence_duration_ms: int = Field(default=500, ge=100, le=10_000)

    def options(self, recognize: RecognizeOptions, partials: PartialPolicy) -> SessionOptions:
        heard = replace(recognize, dynamic_silence=False, fixed_silence=self.silence_duration_ms / 1000)
        # The default is the published detector's 0.6; 1 is never reached.
        margin = min(0.2 + 0.8 * self.threshold, 0.98)
        return SessionOptions(
            heard, partials=partials, speech_margin=margin, lead=self.prefix_padding_ms / 1000
        )


class SemanticVad(_Part):
    """The longer the turn, the less silence ends it: the detector's dynamic schedule."""

    type: Literal["semantic_vad"]
    eagerness: Literal["low", "medium", "high", "auto"] = "auto"

    def options(self, recognize: RecognizeOptions, partials: PartialPolicy) -> SessionOptions:
        factor = _PATIENCE[self.eagerness] / 1000
        steps = [SilenceStep(speech / 1000, silence * factor) for speech, silence in STREAMING_SCHEDULE.steps]
        return SessionOptions(replace(recognize, silence_schedule=tuple(steps)), partials=partials)


def _typed(value: object) -> object:
    return {"type": "server_vad", **value} if isinstance(value, dict) else value


TurnDetection = Annotated[
    Annotated[ServerVad | SemanticVad, Field(discriminator="type")] | None, BeforeValidator(_typed)
]


class Input(_Part):
    format: Format = Format()
    transcription: Transcription | None = None
    turn_detection: TurnDetection = ServerVad()
    noise_reduction: dict[str, Any] | None = None


class Audio(_Part):
    input: Input = Input()


class SessionConfig(_Part):
    """A session as the client may set it; what it leaves out stays as it was."""

    type: Literal["transcription"] = "transcription"
    audio: Audio = Audio()
    include: list[str] | None = None

    def options(self, partials: PartialPolicy) -> SessionOptions:
        """What the engine is asked for."""
        source = self.audio.input
        heard, turn = source.transcription or Transcription(), source.turn_detection
        recognize = RecognizeOptions(language=heard.only_language, hotwords=heard.hotwords)
        if turn is None:
            return SessionOptions(recognize, client_endpoint=True, partials=partials)
        return turn.options(recognize, partials)

    def described(self, *, earlier: bool) -> dict[str, Any]:
        """The fields of the session object, flat in the `earlier` form."""
        body = self.model_dump()
        if not earlier:
            return body
        source = body["audio"]["input"]
        flat = {name: source[field] for name, field in _EARLIER_FIELDS.items()}
        flat["input_audio_format"] = _EARLIER_NAMES[self.audio.input.format.type]
        return {"modalities": ["text"], **flat, "include": body["include"]}


def _current_form(session: dict[str, Any]) -> dict[str, Any]:
    """The earlier flat fields as the nested ones they became."""
    source = {name: session[earlier] for earlier, name in _EARLIER_FIELDS.items() if earlier in session}
    if "format" in source:
        source["format"] = {"type": _EARLIER_FORMATS.get(source["format"], source["format"])}
    return _merged(session, {"audio": {"input": source}}) if source else session


def _merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """`old` with the fields of `new`, objects merged, but a format is one value; a null clears."""
    merged = dict(old)
    for key, value in new.items():
        before = merged.get(key)
        if key != "format" and isinstance(before, dict) and isinstance(value, dict):
            value = _merged(before, value)
        merged[key] = value
    return merged


def updated(config: SessionConfig, change: object) -> SessionConfig:
    """The session after an update; InvalidRequest names the field that makes no sense."""
    if not isinstance(change, dict):
        raise rejected("session", "must be an object")
    try:
        return SessionConfig.model_validate(_merged(config.model_dump(), _current_form(change)))
    except ValidationError as error:
        problem = error.errors()[0]
        raise rejected(_named(problem["loc"], change), problem["msg"]) from error


def _named(location: tuple[int | str, ...], change: dict[str, Any]) -> str:
    """The field as the client called it; a union's tag is no field."""
    path = [str(part) for part in location if part not in ("server_vad", "semantic_vad")]
    if path[:2] == ["audio", "input"]:
        earlier = next((e for e, name in _EARLIER_FIELDS.items() if path[2:3] == [name]), None)
        if earlier in change:
            path = [earlier] if earlier == "input_audio_format" else [earlier, *path[3:]]
    return ".".join(["session", *path])
