"""TandemError as JSON: our form, and OpenAI's under /v1. Every answer carries its request id."""

from __future__ import annotations

import logging
import math
import re
import uuid
from typing import Any

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tandem.errors import InternalError, TandemError

log = logging.getLogger("tandem.gateway.http")

REQUEST_ID_HEADER = "x-request-id"
_OPENAI_PREFIX = "/v1/"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_REASONS = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}


def request_id(scope: Scope) -> str:
    """The id of this request: the client's X-Request-ID where it is usable, else a new one."""
    known: str = scope.setdefault("state", {}).get("request_id", "")
    return known or "unknown"


def _chosen_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == REQUEST_ID_HEADER.encode() and _REQUEST_ID.fullmatch(value.decode("latin-1")):
            return str(value.decode("latin-1"))
    return uuid.uuid4().hex[:16]


def error_body(error: TandemError, request: str) -> dict[str, Any]:
    """`{"error": {"code", "message", "reason", "request_id", "violations"?, "retry_after"?}}`."""
    body: dict[str, Any] = {
        "code": error.http_status,
        "message": str(error),
        "reason": error.reason,
        "request_id": request,
    }
    if error.violations:
        body["violations"] = [{"field": v.field, "description": v.description} for v in error.violations]
    if error.retry_after is not None:
        body["retry_after"] = error.retry_after
    return {"error": body}


def openai_error_body(error: TandemError) -> dict[str, Any]:
    """`{"error": {"message", "type", "param", "code"}}`."""
    kind = "server_error" if error.http_status >= 500 else "invalid_request_error"
    if error.http_status == 429:
        kind = "rate_limit_error"
    param = error.violations[0].field if error.violations else None
    body = {"message": str(error), "type": kind, "param": param, "code": error.reason.lower()}
    return {"error": body}


def error_response(error: TandemError, scope: Scope) -> JSONResponse:
    """The answer to a failed request in the form of its route."""
    openai = scope["path"].startswith(_OPENAI_PREFIX)
    body = openai_error_body(error) if openai else error_body(error, request_id(scope))
    headers = {}
    if error.retry_after is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after))
    return JSONResponse(body, error.http_status, headers)


def add_error_handlers(app: FastAPI) -> None:
    """Typed errors and unknown routes answer in the forms above."""

    async def on_tandem_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, TandemError)
        return error_response(error, request.scope)

    async def on_http_exception(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        known = TandemError(f"{request.method} {request.url.path}: {error.detail}")
        known.http_status = error.status_code
        known.reason = _REASONS.get(error.status_code, "INVALID_REQUEST")
        response = error_response(known, request.scope)
        response.headers.update(error.headers or {})
        return response

    app.add_exception_handler(TandemError, on_tandem_error)
    app.add_exception_handler(HTTPException, on_http_exception)


class RequestScope:
    """ASGI middleware: gives each request its id, and a fault of ours a clean answer and a log entry."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        chosen = _chosen_id(scope)
        scope.setdefault("state", {})["request_id"] = chosen
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = chosen
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            if scope["type"] != "http" or started:
                raise
            log.exception("request %s failed", chosen)
            error = InternalError(f"internal error, see the log for request {chosen}")
            await error_response(error, scope)(scope, receive, send_with_id)
