"""The session object of OpenAI's real-time transcription, in its current and its earlier form."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.api.openai import prompt_terms
from gateway.audio.live import RawDecoder
from gateway.audio.types import RawEncoding
from gateway.session.config import PartialPolicy, SessionOptions
from tandem.errors import FieldViolation, InvalidRequest
from tandem.results import RecognizeOptions

_PCM, _PCMU, _PCMA = "audio/pcm", "audio/pcmu", "audio/pcma"
_EARLIER = {"pcm16": _PCM, "g711_ulaw": _PCMU, "g711_alaw": _PCMA}
_RAW = {_PCM: RawEncoding.S16LE, _PCMU: RawEncoding.MULAW, _PCMA: RawEncoding.ALAW}
_PCM_RATE, _G711_RATE = 24_000, 8_000


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore")


class Format(_Part):
    """What the appended bytes are."""

    type: Literal["audio/pcm", "audio/pcmu", "audio/pcma"] = "audio/pcm"
    rate: int | None = Field(default=None, ge=8_000, le=96_000)

    def decoder(self) -> RawDecoder:
        """A fresh decoder of this format."""
        default = _PCM_RATE if self.type == _PCM else _G711_RATE
        return RawDecoder(_RAW[self.type], self.rate or default)


class Transcription(_Part):
    """Which model transcribes, and what it should know."""

    model: str = ""
    language: str | None = None
    prompt: str = ""


class TurnDetection(_Part):
    """server_vad: this much silence ends a turn. semantic_vad: the longer the turn, the less silence."""

    type: Literal["server_vad", "semantic_vad"] = "server_vad"
    threshold: float = Field(default=0.5, ge=0, le=1)
    prefix_padding_ms: int = Field(default=300, ge=0)
    silence_duration_ms: int = Field(default=500, ge=100, le=10_000)


class Input(_Part):
    format: Format = Format()
    transcription: Transcription | None = None
    turn_detection: TurnDetection | None = TurnDetection()
    noise_reduction: Any = None


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
        silence = (turn or TurnDetection()).silence_duration_ms / 1000
        return SessionOptions(
            RecognizeOptions(
                language=heard.language or None,
                hotwords=prompt_terms(heard.prompt),
                dynamic_silence=turn is not None and turn.type == "semantic_vad",
                fixed_silence=silence,
            ),
            client_endpoint=turn is None,
            partials=partials,
        )


def _current_form(session: dict[str, Any]) -> dict[str, Any]:
    """The earlier flat fields as the nested ones they became."""
    source: dict[str, Any] = {}
    if "input_audio_format" in session:
        name = session["input_audio_format"]
        source["format"] = {"type": _EARLIER.get(name, name)}
    for earlier, name in (
        ("input_audio_transcription", "transcription"),
        ("turn_detection", "turn_detection"),
        ("input_audio_noise_reduction", "noise_reduction"),
    ):
        if earlier in session:
            source[name] = session[earlier]
    return _merged(session, {"audio": {"input": source}}) if source else session


def _merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """`old` with the fields of `new`, objects merged; a null clears."""
    merged = dict(old)
    for key, value in new.items():
        before = merged.get(key)
        merged[key] = (
            _merged(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
        )
    return merged


def updated(config: SessionConfig, change: object) -> SessionConfig:
    """The session after an update; InvalidRequest names the field that makes no sense."""
    if not isinstance(change, dict):
        raise InvalidRequest.of("session", "must be an object")
    try:
        return SessionConfig.model_validate(_merged(config.model_dump(), _current_form(change)))
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(["session", *map(str, problem["loc"])])
        violation = FieldViolation(field, problem["msg"])
        raise InvalidRequest(f"{field}: {problem['msg']}", violations=(violation,)) from error
