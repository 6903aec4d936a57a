"""How long a client waits for an answer, and when it asks again: the server's own advice comes first."""

from __future__ import annotations

import math
import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tenacity

from tandem.errors import Overloaded, TandemError, Unavailable
from tandem.waves import wav_duration

_BASE_SECONDS = 60.0
_SECONDS_PER_AUDIO_SECOND = 2.0
_LOWEST_BYTE_RATE = 2000
"""Of compressed speech: 16 kbit/s."""

_HEAD_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Patience:
    """Attempts in all, and seconds between them where the server gives no advice: doubling, with jitter."""

    attempts: int = 8
    first_delay: float = 0.25
    max_delay: float = 10.0


def recommended_timeout(audio: bytes | Path) -> float:
    """Seconds to wait for a recording's transcript: a minute and twice its duration.

    The duration of compressed audio is not known here: the longest that its size allows counts. Raises
    OSError for a file that cannot be read.
    """
    if isinstance(audio, Path):
        with audio.open("rb") as file:
            head, size = file.read(_HEAD_BYTES), os.fstat(file.fileno()).st_size
    else:
        head, size = audio, len(audio)
    duration = wav_duration(head, size)
    if duration is None:
        duration = size / _LOWEST_BYTE_RATE
    return _BASE_SECONDS + _SECONDS_PER_AUDIO_SECOND * duration


def give_up_after(patience: Patience, budget: float) -> dict[str, Any]:
    """Arguments of a tenacity retrier: Overloaded and Unavailable, within `budget` seconds in all."""
    stop: Any = tenacity.stop_after_attempt(patience.attempts)
    if not math.isinf(budget):
        stop = stop | tenacity.stop_before_delay(budget)
    return {
        "retry": tenacity.retry_if_exception_type((Overloaded, Unavailable)),
        "wait": lambda state: _delay(state, patience),
        "stop": stop,
        "reraise": True,
    }


def _delay(state: tenacity.RetryCallState, patience: Patience) -> float:
    """The server's retry_after, else exponential; up to a quarter more, to keep clients apart."""
    error = state.outcome.exception() if state.outcome is not None else None
    advised = error.retry_after if isinstance(error, TandemError) else None
    doubled = patience.first_delay * 2.0 ** (state.attempt_number - 1)
    delay = min(doubled, patience.max_delay) if advised is None else advised
    return delay * (1 + random.random() / 4)
