"""GET /: the web page with its scripts and styles, and what it must know of the service."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response

from gateway.service import GatewayService
from tandem import __version__
from tandem.errors import NotFound

FOLDER = Path(__file__).resolve().parents[1] / "web"
_PAGE = "index.html"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# Everything comes from this server; recordings are played from blobs.
_POLICY = (
    "default-src 'self'; media-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'; "
    "object-src 'none'"
)
_HEADERS = {
    "cache-control": "no-cache",
    "content-security-policy": _POLICY,
    "permissions-policy": "microphone=(self)",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class _Asset:
    content: bytes
    headers: dict[str, str]

    def answer(self, request: Request) -> Response:
        if self.headers["etag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=self.headers)
        return Response(self.content, headers=self.headers)


def web_router(service: GatewayService, folder: Path = FOLDER) -> APIRouter:
    """The page at `/`, its files under `/web/`. They are few and small, so that they stay in memory."""
    assets = {path.name: _load(path) for path in folder.iterdir() if path.suffix in _TYPES}
    router = APIRouter(include_in_schema=False)

    @router.api_route("/", methods=["GET", "HEAD"])
    async def page(request: Request) -> Response:
        return assets[_PAGE].answer(request)

    @router.get("/web/service.json")
    async def facts() -> dict[str, Any]:
        """What is served; 503 until that is known."""
        model = service.ready().model
        return {
            "model": model.public_name,
            "version": __version__,
            "speakers": model.info.has_speakers,
            "live_speakers": service.live().has_speakers,
            "max_file_bytes": service.limits.max_audio_bytes,
        }

    @router.api_route("/web/{name}", methods=["GET", "HEAD"])
    async def asset(name: str, request: Request) -> Response:
        if name not in assets:
            raise NotFound(f"/web/{name}: not found")
        return assets[name].answer(request)

    return router


def _load(path: Path) -> _Asset:
    content = path.read_bytes()
    etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    return _Asset(content, {**_HEADERS, "content-type": _TYPES[path.suffix], "etag": etag})
