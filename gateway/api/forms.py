"""Form fields that every HTTP route shares, checked and turned into RecognizeOptions."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from tandem.convert import check_options
from tandem.errors import FieldViolation, InvalidRequest
from tandem.results import RecognizeOptions, SilenceStep

_NESTED = re.compile(r"(\w+)\[(\w+)\]")
_TERM_SEPARATOR = re.compile(r"[,，\n]")
_DEFAULTS = RecognizeOptions()


def split_terms(text: str) -> tuple[str, ...]:
    """Terms separated by commas (ASCII or full-width) or lines, without blanks around them, each once."""
    terms = (term.strip() for term in _TERM_SEPARATOR.split(text))
    return tuple(dict.fromkeys(term for term in terms if term))


def _schedule(value: object) -> tuple[SilenceStep, ...]:
    """`[[5000, 1500], [20000, 800], [null, 300]]`: up to so many ms of speech, so many ms of silence."""
    if not isinstance(value, str):
        raise ValueError("must be a JSON array")
    try:
        return tuple(_step(pair) for pair in json.loads(value))
    except (TypeError, OverflowError, RecursionError, json.JSONDecodeError) as error:
        raise ValueError("must be JSON like [[5000, 1500], [20000, 800], [null, 300]]") from error


def _step(pair: object) -> SilenceStep:
    if not isinstance(pair, list) or len(pair) != 2:
        raise TypeError
    limit, silence = pair
    unlimited = limit is None or limit == "inf"
    return SilenceStep(math.inf if unlimited else float(limit) / 1000, float(silence) / 1000)


Schedule = Annotated[
    tuple[SilenceStep, ...],
    BeforeValidator(_schedule, json_schema_input_type=str),
]


class RecognitionForm(BaseModel):
    """Fields of both routes. An empty value counts as not given."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    language: str | None = Field(
        None, description='ISO code or name ("zh", "中文", "English"); the model decides when not given.'
    )
    hotwords: str = Field("", description="Words and phrases that are likely to occur, comma-separated.")
    spk: bool = Field(False, description="Tell speakers apart.")
    num_speakers: int | None = Field(None, description="How many speakers there are; found when not given.")
    separate_channels: bool = Field(
        False, description="Recognise each channel by itself, instead of their mix; segments say which."
    )
    itn: bool = Field(True, description="Inverse text normalisation: “nineteen” becomes “19”.")
    vad: bool = Field(True, description="Cut at pauses; when off the recording is one segment.")
    dynamic_silence: bool = Field(
        True, description="The longer a segment is, the shorter the pause that ends it."
    )
    silence_schedule: Schedule = Field(
        (),
        description="Replaces the built-in schedule: JSON pairs of speech and silence in milliseconds, "
        "the last speech null: [[5000, 1500], [20000, 800], [null, 300]].",
    )
    fixed_silence: float = Field(
        _DEFAULTS.fixed_silence,
        description="Pause in seconds that ends a segment when dynamic_silence is off.",
    )
    max_segment: float | None = Field(
        None, description="Longest segment in seconds; the model's own limit when not given."
    )
    max_new_tokens: int | None = Field(
        None, description="Most tokens per segment; scaled to its duration when not given."
    )

    def options(self, request_id: str, **changes: Any) -> RecognizeOptions:
        """Checked options; `changes` are options that a route has fields of its own for."""
        fields: dict[str, Any] = {
            "language": self.language,
            "hotwords": split_terms(self.hotwords),
            "speakers": self.spk,
            "num_speakers": self.num_speakers,
            "separate_channels": self.separate_channels,
            "itn": self.itn,
            "vad": self.vad,
            "dynamic_silence": self.dynamic_silence,
            "silence_schedule": self.silence_schedule,
            "fixed_silence": self.fixed_silence,
            "max_segment": self.max_segment,
            "max_new_tokens": self.max_new_tokens,
            "request_id": request_id,
        }
        options = RecognizeOptions(**{**fields, **changes})
        try:
            check_options(options)
        except InvalidRequest as error:
            raise _named_like_the_form(error) from error
        return options


def _named_like_the_form(error: InvalidRequest) -> InvalidRequest:
    """`config.endpoint.max_segment` of the gRPC message is the form's max_segment."""
    violations = tuple(
        FieldViolation(violation.field.rpartition(".")[2], violation.description)
        for violation in error.violations
    )
    message = "; ".join(f"{violation.field}: {violation.description}" for violation in violations)
    return InvalidRequest(message, violations=violations)


Form = TypeVar("Form", bound=RecognitionForm)


def parse_form(kind: type[Form], fields: Mapping[str, list[str]]) -> Form:
    """The form of a request.

    Lists take the values of `name` and `name[]`, objects those of `name[key]`, others the last of `name`.
    """
    lists = {name for name, info in kind.model_fields.items() if "list" in str(info.annotation)}
    values: dict[str, Any] = {}
    for name, given in fields.items():
        field, present = name.removesuffix("[]"), [value for value in given if value.strip()]
        if field in lists:
            values.setdefault(field, []).extend(present)
        elif present and (nested := _NESTED.fullmatch(field)):
            values.setdefault(nested[1], {})[nested[2]] = present[-1]
        elif present:
            values[field] = present[-1]
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        violations = tuple(
            FieldViolation(".".join(map(str, item["loc"])), item["msg"]) for item in error.errors()
        )
        message = "; ".join(f"{violation.field}: {violation.description}" for violation in violations)
        raise InvalidRequest(message, violations=violations) from error


def form_body(kind: type[RecognitionForm]) -> dict[str, Any]:
    """The OpenAPI request body of a route that takes a recording and this form."""
    schema = kind.model_json_schema(mode="validation")
    recording = {
        "type": "string",
        "format": "binary",
        "description": "The recording: wav, mp3, flac, ogg, opus, m4a, webm and more, any rate.",
    }
    schema["properties"] = {"file": recording, **schema["properties"]}
    schema["required"] = ["file"]
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}
