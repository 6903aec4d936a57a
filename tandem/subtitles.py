"""Subtitles from a transcript: SRT, WebVTT, TSV."""

from __future__ import annotations

from dataclasses import replace

from tandem.cues import SubtitleStyle, cues, plain
from tandem.results import Transcript


def to_srt(transcript: Transcript, style: SubtitleStyle | None = None) -> str:
    """SubRip. A speaker stands before the text, within the width of its line."""
    style = style or SubtitleStyle()
    labels = [len(_label(segment.speaker)) for segment in transcript.segments]
    narrow = replace(style, max_columns=max(style.max_columns - max(labels, default=0), 10))
    blocks = []
    for number, cue in enumerate(cues(transcript, narrow), start=1):
        text = _label(cue.speaker) + "\n".join(cue.lines)
        blocks.append(f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{text}\n")
    return "\n".join(blocks)


def to_vtt(transcript: Transcript, style: SubtitleStyle | None = None) -> str:
    """WebVTT. A speaker is a voice span."""
    blocks = ["WEBVTT\n"]
    for cue in cues(transcript, style):
        text = _escape("\n".join(cue.lines))
        voice = f"<v {_escape(cue.speaker)}>" if cue.speaker else ""
        blocks.append(f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{voice}{text}\n")
    return "\n".join(blocks)


def to_tsv(transcript: Transcript) -> str:
    """One row per segment: start and end in milliseconds, the speaker where known, the text."""
    speakers = any(segment.speaker for segment in transcript.segments)
    rows = [["start", "end", *(["speaker"] if speakers else []), "text"]]
    for segment in transcript.segments:
        times = [str(round(segment.start * 1000)), str(round(segment.end * 1000))]
        speaker = [segment.speaker or ""] if speakers else []
        rows.append([*times, *speaker, plain(segment.text)])
    return "".join("\t".join(row) + "\n" for row in rows)


def _clock(seconds: float, decimal: str) -> str:
    whole, millis = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{decimal}{millis:03}"


def _label(speaker: str | None) -> str:
    return f"{speaker}: " if speaker else ""


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
