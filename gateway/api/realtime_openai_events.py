"""From the live session's events to those of OpenAI's real-time transcription."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

from gateway.session.events import EndReason, Event, Failed, Final, Partial, SpeechBegan, SpeechEnded
from tandem.errors import FieldViolation, InvalidRequest, TandemError

_TRANSCRIPTION = "conversation.item.input_audio_transcription"
_CODE = "openai_code"
_ENDED = {
    EndReason.IDLE: ("session_expired", "The session ended: nothing was sent for too long."),
    EndReason.MAX_DURATION: ("session_expired", "The session ended: it reached the longest duration."),
    EndReason.DRAIN: ("server_shutting_down", "The session ended: the server is shutting down."),
}


def server_event(kind: str, **fields: Any) -> dict[str, Any]:
    """An event with an id of its own."""
    return {"type": kind, "event_id": f"event_{uuid.uuid4().hex[:20]}", **fields}


def rejected(field: str, description: str, code: str = "invalid_value") -> InvalidRequest:
    """What is wrong with a client's event, with OpenAI's code for it."""
    violation = FieldViolation(field, description)
    return InvalidRequest(f"{field}: {description}", violations=(violation,), metadata={_CODE: code})


def error_event(error: TandemError, client_event: str | None) -> dict[str, Any]:
    """What went wrong with a client's event, or with the session."""
    kind = "invalid_request_error" if error.http_status < 500 else "server_error"
    param = error.violations[0].field if error.violations else None
    code = error.metadata.get(_CODE, error.reason.lower())
    return _error(kind, code, str(error), param, client_event)


def ended_event(reason: EndReason) -> dict[str, Any]:
    """Why the server ends the session; the connection closes after it."""
    code, message = _ENDED[reason]
    kind = "server_error" if reason is EndReason.DRAIN else "invalid_request_error"
    return _error(kind, code, message, None, None)


def _error(kind: str, code: str, message: str, param: str | None, client_event: str | None) -> dict[str, Any]:
    detail = {"type": kind, "code": code, "message": message, "param": param, "event_id": client_event}
    return server_event("error", error=detail)


class Items:
    """Items of one session. Deltas only append, so they carry confirmed text; the last brings the rest.

    With the client's own turns there is no speech_started or speech_stopped. In the `earlier` form of the
    protocol an item is created, in the current one it is added and done.
    """

    def __init__(self) -> None:
        self.earlier = False
        self._prefix = uuid.uuid4().hex[:12]
        self._sent: dict[int, str] = {}
        self._previous: str | None = None

    def _id(self, index: int) -> str:
        return f"item_{self._prefix}_{index}"

    def events(self, event: Event, *, turns: bool) -> Iterator[dict[str, Any]]:
        """The server's events for one of the engine's; `turns` when the server detects them."""
        if isinstance(event, SpeechBegan) and turns:
            yield self._speech("started", "audio_start_ms", event)
        elif isinstance(event, SpeechEnded):
            if turns:
                yield self._speech("stopped", "audio_end_ms", event)
            yield from self._committed(event.index)
        elif isinstance(event, Partial):
            yield from self._delta(event.index, event.fixed)
        elif isinstance(event, Final):
            yield from self._delta(event.index, event.segment.text)
            self._sent.pop(event.index, None)
            yield server_event(
                f"{_TRANSCRIPTION}.completed",
                item_id=self._id(event.index),
                content_index=0,
                transcript=event.segment.text,
                usage={"type": "duration", "seconds": round(event.segment.end - event.segment.start, 3)},
            )
        elif isinstance(event, Failed):
            yield from self._failed(event.error)

    def _speech(self, what: str, key: str, event: SpeechBegan | SpeechEnded) -> dict[str, Any]:
        times = {key: round(event.at * 1000)}
        return server_event(f"input_audio_buffer.speech_{what}", item_id=self._id(event.index), **times)

    def _committed(self, index: int) -> Iterator[dict[str, Any]]:
        self._sent.setdefault(index, "")
        item, before = self._id(index), self._previous
        self._previous = item
        yield server_event("input_audio_buffer.committed", previous_item_id=before, item_id=item)
        message = {
            "id": item,
            "object": "realtime.item",
            "type": "message",
            "status": "completed",
            "role": "user",
            "content": [{"type": "input_audio", "transcript": None}],
        }
        for what in ("created",) if self.earlier else ("added", "done"):
            yield server_event(f"conversation.item.{what}", previous_item_id=before, item=message)

    def _delta(self, index: int, text: str) -> Iterator[dict[str, Any]]:
        sent = self._sent.setdefault(index, "")
        if len(text) > len(sent) and text.startswith(sent):
            self._sent[index] = text
            yield server_event(
                f"{_TRANSCRIPTION}.delta", item_id=self._id(index), content_index=0, delta=text[len(sent) :]
            )

    def _failed(self, error: TandemError) -> Iterator[dict[str, Any]]:
        """Every item that still waits for its transcript fails."""
        detail = error_event(error, None)["error"]
        del detail["event_id"]
        for index in sorted(self._sent):
            yield server_event(
                f"{_TRANSCRIPTION}.failed", item_id=self._id(index), content_index=0, error=detail
            )
        self._sent.clear()
