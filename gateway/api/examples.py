"""What the API page at /docs shows: an example answer of each route, and the errors all of them have."""

from __future__ import annotations

from typing import Any

_WORD = {"word": "砸", "start": 2.02, "end": 2.08}
_SEGMENT = {"text": "砸了", "start": 1.7, "end": 2.4, "speaker": "SPK0", "words": [_WORD]}
ASR = {
    "text": "砸了",
    "segments": [_SEGMENT],
    "duration": 227.4,
    "processing_time": 3.422,
    "rtf": 0.015,
    "timestamp_source": "ctc",
}
VERBOSE = {
    "task": "transcribe",
    "language": "zh",
    "duration": 5.17,
    "text": "我一直没有照顾孩子，但是我想要抚养权。",
    "segments": [{"id": 0, "start": 0.0, "end": 5.15, "text": "我一直没有…", "words": [_WORD]}],
    "words": [_WORD],
}
_STREAM = (
    'data: {"type": "transcript.text.delta", "delta": "Good morning."}\n\n'
    'data: {"type": "transcript.text.done", "text": "Good morning."}\n\ndata: [DONE]\n\n'
)
_SUBTITLES = "1\n00:00:00,000 --> 00:00:01,500\nGood morning.\n"

_ERRORS = {
    400: "Undecodable audio (INVALID_AUDIO) or a bad field (INVALID_REQUEST), named in `violations`.",
    408: "The client stopped sending (UPLOAD_TIMEOUT).",
    413: "More bytes or seconds than this server accepts (LIMIT_EXCEEDED).",
    429: "Too much at once (OVERLOADED): refused before any work, see Retry-After.",
    501: "The loaded model cannot do this (CAPABILITY_MISSING).",
    503: "Starting, draining, or a tier is gone (UNAVAILABLE), see Retry-After.",
}


def answers(example: dict[str, Any], *, texts: bool = False) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route: an example, where `texts` also of text and event streams, and errors."""
    content: dict[str, Any] = {"application/json": {"example": example}}
    if texts:
        content["text/plain"] = {"example": _SUBTITLES}
        content["text/event-stream"] = {"example": _STREAM}
    found: dict[int | str, dict[str, Any]] = {200: {"description": "The transcript.", "content": content}}
    return found | {status: {"description": text} for status, text in _ERRORS.items()}
