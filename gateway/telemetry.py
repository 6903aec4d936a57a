"""Prometheus metrics of the gateway: HTTP requests, time per stage of a recording, live sessions."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict

from prometheus_client import Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.session.registry import SessionRegistry
from tandem.results import Transcript
from tandem.rpc.metrics import LATENCY, snapshot

_HTTP = Counter("tandem_http_requests", "HTTP requests by route and status.", ("route", "method", "status"))
_HTTP_SECONDS = Histogram(
    "tandem_http_request_seconds", "Duration of HTTP requests.", ("route",), buckets=LATENCY
)
_WEBSOCKETS = Gauge("tandem_http_open_websockets", "WebSocket connections on the HTTP port.")
_AUDIO = Counter("tandem_gateway_audio_seconds", "Seconds of recordings recognized.")
_STAGES = Histogram(
    "tandem_gateway_stage_seconds",
    "Time of a recording in each stage; stages overlap, and encode, decode and align add up segments.",
    ("stage",),
    buckets=LATENCY,
)
_LIVE = {
    "tandem_gateway_open_sessions": "Live sessions, those that wait for their client included.",
    "tandem_gateway_speaking_sessions": "Live sessions in which somebody speaks.",
    "tandem_gateway_session_backlog_seconds": "Most seconds of ended speech that wait for their final.",
    "tandem_gateway_final_seconds": "Recent average time from the end of speech to its final text.",
}


def observe_transcript(transcript: Transcript) -> None:
    """Count one recognized recording."""
    _AUDIO.inc(transcript.duration)
    for stage, seconds in asdict(transcript.timing).items():
        _STAGES.labels(stage).observe(seconds)


def live_gauges(sessions: SessionRegistry) -> AbstractContextManager[None]:
    """Gauges of live sessions while the context is open."""

    def values() -> dict[str, float]:
        return dict(zip(_LIVE, sessions.statistics(), strict=True))

    return snapshot(_LIVE, values)


class HttpMetrics:
    """ASGI middleware that counts requests by the route that answered them."""

    def __init__(self, app: ASGIApp, clock: Callable[[], float] = time.perf_counter) -> None:
        self._app, self._clock = app, clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            with _WEBSOCKETS.track_inprogress():
                await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._count(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _count(self, scope: Scope, receive: Receive, send: Send) -> None:
        status, started = 500, self._clock()

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        finally:
            # Not the path: a scanner would make a time series of every name it tries.
            route = getattr(scope.get("route"), "path", "none")
            _HTTP.labels(route, scope["method"], str(status)).inc()
            _HTTP_SECONDS.labels(route).observe(self._clock() - started)
