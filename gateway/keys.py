"""API keys of the gateway: only hashes are stored, comparisons take the same time for every key.

The file has one key a line, `sha256:<hex> <name>`; blank lines and lines with # are left out. It may change
while the gateway runs.
"""

from __future__ import annotations

import hmac
import logging
import re
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NoReturn

import grpc
import grpc.aio
from grpc_status import rpc_status

from tandem.api_keys import key_hash
from tandem.errors import Unauthenticated
from tandem.rpc.handlers import drain
from tandem.rpc.status import to_status

log = logging.getLogger("tandem.gateway.keys")

_LINE = re.compile(r"sha256:([0-9a-f]{64})\s+(\S+)")
_OPEN_SERVICES = ("/grpc.health.v1.Health/",)
_REFUSED = "a valid API key is needed: send it as `authorization: Bearer KEY`"
_caller: ContextVar[str | None] = ContextVar("caller", default=None)


def caller() -> str | None:
    """The name of the API key that the gRPC call of this task came with; None where none is needed."""
    return _caller.get()


class KeyRing:
    """The keys of one file."""

    def __init__(self, path: Path) -> None:
        """Raises OSError and ValueError for a file that cannot be used."""
        self._path = path
        self._stamp = self._now()
        self._keys = self._read()

    def name_of(self, authorization: str | None) -> str | None:
        """Whose key an Authorization header carries; None for none and for unknown ones."""
        scheme, _, key = (authorization or "").partition(" ")
        return self.name_of_key(key.strip()) if scheme.lower() == "bearer" else None

    def name_of_key(self, key: str) -> str | None:
        """Whose key this is."""
        self._refresh()
        given, found = key_hash(key), None
        for known, name in self._keys.items():
            if hmac.compare_digest(known, given):
                found = name
        return found

    def _refresh(self) -> None:
        try:
            stamp = self._now()
            if stamp != self._stamp:
                self._keys, self._stamp = self._read(), stamp
                log.info("%d API keys read", len(self._keys))
        except (OSError, ValueError) as error:
            log.error("the keys read before stay in use: %s", error)

    def _now(self) -> tuple[int, int]:
        status = self._path.stat()
        return status.st_mtime_ns, status.st_size

    def _read(self) -> dict[str, str]:
        keys = {}
        for number, line in enumerate(self._path.read_text(encoding="utf-8").splitlines(), 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            match = _LINE.fullmatch(line.strip())
            if match is None:
                raise ValueError(f"{self._path}, line {number}: expected `sha256:<64 hex digits> <name>`")
            keys[match[1]] = match[2]
        return keys


class KeyInterceptor(grpc.aio.ServerInterceptor):
    """Refuses calls without a known key, tells handlers whose it is; health checks need none."""

    def __init__(self, keys: KeyRing) -> None:
        self._keys = keys

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: Any
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler: grpc.RpcMethodHandler[Any, Any] | None = await continuation(details)
        if handler is None or details.method.startswith(_OPEN_SERVICES):
            return handler
        headers = dict(details.invocation_metadata)
        name = self._keys.name_of(headers.get("authorization"))
        if name is None:
            return _refusal(handler)
        # Every call has a task of its own, in which its handler runs after this.
        _caller.set(name)
        return handler


async def _refuse(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> NoReturn:
    await drain(request)
    await context.abort_with_status(rpc_status.to_status(to_status(Unauthenticated(_REFUSED))))
    raise AssertionError("abort does not return")


def _refusal(handler: Any) -> grpc.RpcMethodHandler[Any, Any]:
    """A handler of the same kind that refuses."""
    kinds = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    make = kinds[handler.request_streaming, handler.response_streaming]
    return make(_refuse, handler.request_deserializer, handler.response_serializer)
