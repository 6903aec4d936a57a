"""API keys over HTTP and WebSocket: in the Authorization header, or in a subprotocol from browsers."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request
from websockets.http11 import Response as WebSocketResponse

from gateway.api.errors import error_response
from gateway.keys import KeyRing
from tandem.errors import Unauthenticated

_OPEN_PATHS = frozenset(("/health", "/ready", "/"))
_PAGE_FILES, _PAGE_FACTS = "/web/", "/web/service.json"
KEY_SUBPROTOCOL = "openai-insecure-api-key."
_REFUSED = "a valid API key is needed: send it as `Authorization: Bearer KEY`"


class RequireKey:
    """ASGI middleware: requests without a known key get 401, but for health, readiness and the web page.

    The page's files hold no secret, and a browser could not send a key for them; the page asks for one.
    """

    def __init__(self, app: ASGIApp, keys: KeyRing) -> None:
        self._app, self._keys = app, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or self._lets_in(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            response: Response = error_response(Unauthenticated(_REFUSED), scope)
            response.headers["www-authenticate"] = "Bearer"
            await response(scope, receive, send)
        else:
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": "a valid API key is needed"})

    def _lets_in(self, scope: Scope) -> bool:
        if _is_open(scope["path"]) or scope.get("method") == "OPTIONS":
            return True
        headers = Headers(scope=scope)
        if self._keys.name_of(headers.get("authorization")) is not None:
            return True
        offered = scope.get("subprotocols", ())
        keys = [name.removeprefix(KEY_SUBPROTOCOL) for name in offered if name.startswith(KEY_SUBPROTOCOL)]
        return any(self._keys.name_of_key(key) is not None for key in keys)


def _is_open(path: str) -> bool:
    return path in _OPEN_PATHS or (path.startswith(_PAGE_FILES) and path != _PAGE_FACTS)


def check_handshake(
    keys: KeyRing | None, connection: ServerConnection, request: Request
) -> WebSocketResponse | None:
    """The refusal of a WebSocket handshake without a known key; None lets it in."""
    if keys is None or keys.name_of(request.headers.get("Authorization")) is not None:
        return None
    return connection.respond(401, _REFUSED + "\n")
