"""Transcripts in the form of FunASR's results: dicts with key, text, timestamps, sentence_info."""

from __future__ import annotations

from typing import Any

from tandem.results import Segment, Transcript


def result_dict(key: str, transcript: Transcript, *, sentences: bool) -> dict[str, Any]:
    """`timestamps` (seconds) is there when the model gives times of words; `sentence_info` when asked for."""
    result: dict[str, Any] = {"key": key, "text": transcript.text}
    words = [word for segment in transcript.segments for word in segment.words]
    if words:
        result["timestamps"] = [
            {
                "token": word.text,
                "start_time": round(word.start, 3),
                "end_time": round(word.end, 3),
                "score": round(word.score, 3),
            }
            for word in words
        ]
    if sentences:
        result["sentence_info"] = [_sentence(segment) for segment in transcript.segments]
    return result


def _sentence(segment: Segment) -> dict[str, Any]:
    """Times in milliseconds; `spk` is a number, or absent where speakers were not asked for."""
    sentence: dict[str, Any] = {
        "text": segment.text,
        "sentence": segment.text,
        "start": round(segment.start * 1000),
        "end": round(segment.end * 1000),
        "timestamp": [[round(word.start * 1000), round(word.end * 1000)] for word in segment.words],
    }
    if segment.speaker is not None:
        sentence["spk"] = int(segment.speaker.removeprefix("SPK"))
    return sentence
