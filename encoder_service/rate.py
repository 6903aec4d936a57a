"""How fast the encoder has been lately, so that a refused caller learns when to come back."""

from __future__ import annotations


class RateMeter:
    """Seconds of audio per second of computing; a batch counts half after `half_life` seconds of work."""

    def __init__(self, half_life: float = 10.0) -> None:
        self._half_life = half_life
        self._audio = 0.0
        self._busy = 0.0

    def add(self, audio_seconds: float, busy_seconds: float) -> None:
        kept = 0.5 ** (busy_seconds / self._half_life)
        self._audio = self._audio * kept + audio_seconds
        self._busy = self._busy * kept + busy_seconds

    @property
    def value(self) -> float:
        """0 before the first batch."""
        return self._audio / self._busy if self._busy > 0 else 0.0
