"""A transcript in each of OpenAI's response formats; the guide's words stand inside the segments as well."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Collection
from typing import Any

from starlette.responses import JSONResponse, PlainTextResponse, Response

from gateway.api.rest import who, word_json
from tandem.results import Segment, TimestampSource, Transcript
from tandem.subtitles import to_srt, to_vtt

SEGMENT_EVENT = "transcript.text.segment"


def usage(transcript: Transcript) -> dict[str, Any]:
    """What OpenAI bills by; here it just says how long the recording is."""
    return {"type": "duration", "seconds": math.ceil(transcript.duration)}


def verbose(transcript: Transcript, granularities: Collection[str]) -> dict[str, Any]:
    """OpenAI's verbose_json. `words` on top and in each segment, when asked for and there are times.

    What the model does not tell is null: the language where none was given, log probabilities.
    """
    timed = "word" in granularities and transcript.timestamp_source is not TimestampSource.NONE
    body: dict[str, Any] = {
        "task": "transcribe",
        "language": transcript.language,
        "duration": round(transcript.duration, 3),
        "text": transcript.text,
        "segments": [
            _verbose_segment(index, segment, timed) for index, segment in enumerate(transcript.segments)
        ],
        "timestamp_source": transcript.timestamp_source.value,
        "usage": usage(transcript),
    }
    if timed:
        body["words"] = [word_json(word) for segment in transcript.segments for word in segment.words]
    return body


def _verbose_segment(index: int, segment: Segment, timed: bool) -> dict[str, Any]:
    data = segment.text.encode()
    body: dict[str, Any] = {
        "id": index,
        "seek": round(segment.start * 100),
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "text": segment.text,
        "tokens": list(segment.token_ids),
        "temperature": 0.0,
        "avg_logprob": None,
        "compression_ratio": round(len(data) / len(zlib.compress(data)), 4),
        "no_speech_prob": None,
    }
    body |= who(segment)
    if timed:
        body["words"] = [word_json(word) for word in segment.words]
    return body


def speaker_letter(speaker: str | None) -> str:
    """OpenAI's label of a speaker: SPK0 is A, SPK25 Z, SPK26 AA. Other names stay."""
    number = (speaker or "SPK0").removeprefix("SPK")
    if not number.isdigit():
        return str(speaker)
    letters, rest = "", int(number) + 1
    while rest:
        rest, letter = divmod(rest - 1, 26)
        letters = chr(ord("A") + letter) + letters
    return letters


def diarized_segments(transcript: Transcript) -> list[dict[str, Any]]:
    """OpenAI's segments with speakers; in a stream they are events."""
    return [
        {
            "type": SEGMENT_EVENT,
            "id": f"seg_{index}",
            "start": round(segment.start, 3),
            "end": round(segment.end, 3),
            "text": segment.text,
            "speaker": speaker_letter(segment.speaker),
        }
        for index, segment in enumerate(transcript.segments)
    ]


def diarized(transcript: Transcript) -> dict[str, Any]:
    """OpenAI's diarized_json."""
    return {
        "task": "transcribe",
        "duration": round(transcript.duration, 3),
        "text": transcript.text,
        "segments": diarized_segments(transcript),
        "usage": usage(transcript),
    }


def respond(transcript: Transcript, style: str, granularities: Collection[str]) -> Response:
    """The answer in one of the response formats."""
    formats: dict[str, Callable[[], Response]] = {
        "json": lambda: JSONResponse({"text": transcript.text}),
        "text": lambda: PlainTextResponse(transcript.text + "\n"),
        "verbose_json": lambda: JSONResponse(verbose(transcript, granularities)),
        "diarized_json": lambda: JSONResponse(diarized(transcript)),
        "srt": lambda: PlainTextResponse(to_srt(transcript)),
        "vtt": lambda: PlainTextResponse(to_vtt(transcript), media_type="text/vtt"),
    }
    return formats[style]()
