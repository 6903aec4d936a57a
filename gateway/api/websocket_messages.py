"""What WS /ws sends. Times are milliseconds."""

from __future__ import annotations

from typing import Any

from tandem.errors import TandemError
from tandem.results import Segment, TimestampSource, Transcript, Word


def error_message(error: TandemError) -> dict[str, Any]:
    """`{"event": "error", "error", "reason", "retry_after"?}`; the guide's server says nothing."""
    body: dict[str, Any] = {"event": "error", "error": str(error), "reason": error.reason}
    if error.retry_after is not None:
        body["retry_after"] = error.retry_after
    return body


def progress_message(duration_ms: int) -> dict[str, Any]:
    """The answer to audio: how much of it has arrived."""
    return {"sentences": [], "is_final": False, "duration_ms": duration_ms}


def final_message(transcript: Transcript, duration_ms: int) -> dict[str, Any]:
    """`sentences` with times in ms, `spk` where speakers were asked for, words where there are times."""
    timed = transcript.timestamp_source is not TimestampSource.NONE
    return {
        "sentences": [_sentence(segment, timed) for segment in transcript.segments],
        "is_final": True,
        "duration_ms": duration_ms,
        "timestamp_source": transcript.timestamp_source.value,
    }


def _sentence(segment: Segment, timed: bool) -> dict[str, Any]:
    body: dict[str, Any] = {"text": segment.text, "start": _ms(segment.start), "end": _ms(segment.end)}
    if segment.speaker is not None:
        number = segment.speaker.removeprefix("SPK")
        body["spk"] = int(number) if number.isdigit() else segment.speaker
    if timed:
        body["words"] = [_word(word) for word in segment.words]
    return body


def _word(word: Word) -> dict[str, Any]:
    return {"word": word.text, "start": _ms(word.start), "end": _ms(word.end)}


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
