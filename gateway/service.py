"""What every protocol of the gateway answers with: the recognizer, once the encoder is known, and limits."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.pipeline import Recognizer
from gateway.session.registry import SessionRegistry
from tandem.errors import LimitExceeded, Unavailable


@dataclass(frozen=True, slots=True)
class ServiceLimits:
    """What one request may bring: bytes of audio and seconds of audio."""

    max_audio_bytes: int
    max_audio_duration: float

    def check_bytes(self, size: int) -> None:
        if size > self.max_audio_bytes:
            raise LimitExceeded(f"{size} bytes exceed the limit of {self.max_audio_bytes}")


@dataclass(slots=True)
class GatewayService:
    """Shared by all protocols of one process. The rest is set when the encoder has been found."""

    limits: ServiceLimits
    recognizer: Recognizer | None = field(default=None)
    sessions: SessionRegistry | None = field(default=None)

    def ready(self) -> Recognizer:
        """The recognizer; Unavailable until there is one."""
        if self.recognizer is None:
            raise Unavailable("the gateway is waiting for the encoder", retry_after=1.0)
        return self.recognizer

    def live(self) -> SessionRegistry:
        """The live sessions; Unavailable until there is a recognizer."""
        self.ready()
        if self.sessions is None:
            raise Unavailable("the gateway is starting", retry_after=1.0)
        return self.sessions
