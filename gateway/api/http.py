"""The HTTP application of the gateway: routes, errors, health, CORS, and the API page at /docs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi_offline import FastAPIOffline

from gateway.api.auth import RequireKey
from gateway.api.errors import RequestScope, add_error_handlers
from gateway.api.openai import openai_router
from gateway.api.realtime_defaults import RealtimeDefaults
from gateway.api.realtime_http import realtime_http_router
from gateway.api.realtime_openai import realtime_router
from gateway.api.rest import asr_router
from gateway.api.web import web_router
from gateway.api.websocket import websocket_router
from gateway.keys import KeyRing
from gateway.service import GatewayService
from gateway.telemetry import HttpMetrics
from tandem import __version__
from tandem.errors import Unavailable

_DESCRIPTION = """
Speech recognition with language-model decoders. The page at [/](/) captions a microphone or a file.

* `POST /asr`: the offline route of FunASR's vLLM guide.
* `POST /v1/audio/transcriptions`: OpenAI's route, for the `openai` package and all that speaks it.
* `WS /ws`: `START`, `LANGUAGE:zh`, `HOTWORDS:a,b`, `SPK:true`, PCM16 16 kHz mono audio, `STOP`.
* `WS /ws/realtime`: the same with captions while one speaks, as on port 10095.
* `WS /v1/realtime?intent=transcription`: OpenAI's real-time transcription sessions.

Errors are `{"error": {"code", "message", "reason", "request_id", "violations"?, "retry_after"?}}`;
under `/v1` they have OpenAI's form. Every answer carries `X-Request-ID`: the client's own, or a new one.
"""


def make_app(
    service: GatewayService,
    *,
    cors_origins: Sequence[str] = (),
    is_draining: Callable[[], bool] = lambda: False,
    is_ready: Callable[[], bool] = lambda: True,
    realtime: RealtimeDefaults | None = None,
    keys: KeyRing | None = None,
) -> FastAPI:
    """The application. `cors_origins` lists the origins of pages that may call it, "*" for all."""
    # The scripts of the page at /docs come from this server too.
    app = FastAPIOffline(
        title="Tandem",
        version=__version__,
        description=_DESCRIPTION,
        redoc_url=None,
        static_url="/docs/static",
        favicon_url="/web/icon.svg",
    )
    add_error_handlers(app)
    if keys is not None:
        app.add_middleware(RequireKey, keys=keys)
    app.add_middleware(RequestScope)
    app.add_middleware(HttpMetrics)
    if cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["x-request-id", "retry-after"],
        )
    _add_health(app, service, is_draining, is_ready)
    app.include_router(asr_router(service))
    app.include_router(openai_router(service))
    app.include_router(websocket_router(service, cors_origins))
    app.include_router(realtime_router(service, cors_origins))
    app.include_router(realtime_http_router(service, realtime or RealtimeDefaults(), cors_origins))
    app.include_router(web_router(service))
    return app


def _add_health(
    app: FastAPI, service: GatewayService, is_draining: Callable[[], bool], is_ready: Callable[[], bool]
) -> None:
    @app.get("/health", tags=["Health"], summary="Is the process alive?")
    async def health() -> dict[str, Any]:
        """Always 200 while the process can answer; `models_loaded` is empty until the encoder is found."""
        loaded = [] if service.recognizer is None else [service.recognizer.model.public_name]
        return {"status": "ok", "version": __version__, "models_loaded": loaded}

    @app.get("/ready", tags=["Health"], summary="Should this process get requests?")
    async def ready() -> dict[str, str]:
        """200 between finding the encoder and the drain, but not while all encoders are gone; else 503."""
        if is_draining():
            raise Unavailable("the gateway is shutting down", retry_after=1.0)
        model = service.ready().model.public_name
        if not is_ready():
            raise Unavailable("no encoder takes requests", retry_after=1.0)
        return {"status": "ready", "model": model}
