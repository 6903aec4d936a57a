"""What recognition is asked and what it returns: options in, transcript out. Times are seconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class TimestampSource(StrEnum):
    """Where word times come from; nothing is ever invented."""

    NONE = "none"
    CTC = "ctc"


@dataclass(frozen=True, slots=True)
class SilenceStep:
    """Up to `max_speech` seconds of speech, `silence` seconds of silence end the segment."""

    max_speech: float
    silence: float


@dataclass(frozen=True, slots=True)
class RecognizeOptions:
    """How to recognise a recording.

    `language` is an ISO code or a name, None lets the model decide. `dynamic_silence` shortens the required
    silence as a segment grows; `silence_schedule` replaces the built-in steps. `max_segment` is in seconds,
    None is the model's own limit. `separate_channels` recognises each channel by itself instead of their
    mix. `max_new_tokens` None scales the budget to the segment's duration.
    """

    language: str | None = None
    hotwords: tuple[str, ...] = ()
    itn: bool = True
    vad: bool = True
    word_times: bool = True
    speakers: bool = False
    num_speakers: int | None = None
    dynamic_silence: bool = True
    silence_schedule: tuple[SilenceStep, ...] = ()
    fixed_silence: float = 0.8
    max_segment: float | None = None
    max_new_tokens: int | None = None
    separate_channels: bool = False
    details: bool = False
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Word:
    """A word (or Chinese character) with its times in seconds and its alignment score, 0 to 1."""

    text: str
    start: float
    end: float
    score: float


@dataclass(frozen=True, slots=True)
class Segment:
    """One stretch of speech between pauses. Prompt and output ids are filled when details were asked for."""

    text: str
    start: float
    end: float
    words: tuple[Word, ...] = ()
    speaker: str | None = None
    channel: int = 0
    prompt_token_ids: tuple[int, ...] = ()
    token_ids: tuple[int, ...] = ()
    ctc_text: str | None = None


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of wall time per stage; encode and decode are sums over segments that run side by side."""

    total: float = 0.0
    audio_decode: float = 0.0
    vad: float = 0.0
    encode_queue: float = 0.0
    encode: float = 0.0
    decode: float = 0.0
    align: float = 0.0
    speakers: float = 0.0


@dataclass(frozen=True, slots=True)
class Transcript:
    """The result for one recording."""

    text: str
    segments: tuple[Segment, ...]
    duration: float
    timestamp_source: TimestampSource = TimestampSource.NONE
    language: str | None = None
    timing: Timing = field(default_factory=Timing)
    request_id: str = ""

    @property
    def rtf(self) -> float:
        """Processing time over audio duration."""
        return self.timing.total / self.duration if self.duration else 0.0
