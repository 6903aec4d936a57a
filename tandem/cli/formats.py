"""How a transcript is printed: text, json, jsonl, subtitles."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from tandem.results import Segment, Transcript
from tandem.subtitles import to_srt, to_tsv, to_vtt

FORMATS = ("text", "json", "jsonl", "srt", "vtt", "tsv")


def clock(seconds: float) -> str:
    """`m:ss.cc`."""
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}:{rest:05.2f}"


def render(key: str, file: str, transcript: Transcript, style: str, *, details: bool) -> str:
    """One recording in one of FORMATS."""
    if style == "text":
        return "\n".join(_line(segment) for segment in transcript.segments)
    subtitles = {"srt": to_srt, "vtt": to_vtt, "tsv": to_tsv}
    if style in subtitles:
        return subtitles[style](transcript)
    record = {"key": key, "file": file, **to_dict(transcript, details=details)}
    return json.dumps(record, ensure_ascii=False, indent=2 if style == "json" else None)


def _line(segment: Segment) -> str:
    channel = f" channel {segment.channel}" if segment.channel else ""
    speaker = f" {segment.speaker}" if segment.speaker else ""
    return f"[{clock(segment.start)} - {clock(segment.end)}]{channel}{speaker} {segment.text}"


def to_dict(transcript: Transcript, *, details: bool) -> dict[str, Any]:
    """JSON form; fields that only `details` asks for are left out otherwise."""
    record = asdict(transcript)
    for segment in record["segments"]:
        if not details:
            for key in ("prompt_token_ids", "token_ids", "ctc_text"):
                del segment[key]
        if segment["speaker"] is None:
            del segment["speaker"]
    record["rtf"] = round(transcript.rtf, 4)
    return record
