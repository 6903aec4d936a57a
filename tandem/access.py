"""What a client brings to get in: an API key, certificates. Channels that send them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

Options = Sequence[tuple[str, Any]]


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach a server. With `ca` (PEM file) the connection is encrypted and the server checked.

    `certificate` and `key` (PEM files) make TLS mutual. `server_name` is what the server's certificate
    must say when that is not the host of the target. `api_key` goes with every call.
    """

    ca: str | Path = ""
    certificate: str | Path = ""
    key: str | Path = ""
    server_name: str = ""
    api_key: str = field(default="", repr=False)

    def channel(self, target: str, options: Options) -> grpc.Channel:
        """A blocking channel. Raises OSError when a file cannot be read."""
        channel = (
            grpc.secure_channel(target, self._credentials(), [*options, *self._names()])
            if self.ca
            else grpc.insecure_channel(target, options)
        )
        return grpc.intercept_channel(channel, _bearer(self.api_key)) if self.api_key else channel

    def aio_channel(self, target: str, options: Options) -> grpc.aio.Channel:
        """An asyncio channel. Raises OSError when a file cannot be read."""
        keys = _aio_bearers(self.api_key) if self.api_key else None
        if not self.ca:
            return grpc.aio.insecure_channel(target, options, interceptors=keys)
        credentials = self._credentials()
        return grpc.aio.secure_channel(target, credentials, [*options, *self._names()], interceptors=keys)

    def _credentials(self) -> grpc.ChannelCredentials:
        def read(path: str | Path) -> bytes | None:
            return Path(path).read_bytes() if path else None

        return grpc.ssl_channel_credentials(read(self.ca), read(self.key), read(self.certificate))

    def _names(self) -> Options:
        return [("grpc.ssl_target_name_override", self.server_name)] if self.server_name else []


_KINDS = ("UnaryUnary", "UnaryStream", "StreamUnary", "StreamStream")
_METHODS = (
    "intercept_unary_unary",
    "intercept_unary_stream",
    "intercept_stream_unary",
    "intercept_stream_stream",
)


class _Details(grpc.ClientCallDetails):
    def __init__(self, call: Any, metadata: tuple[tuple[str, str | bytes], ...]) -> None:
        self.method, self.timeout, self.metadata = call.method, call.timeout, metadata
        self.credentials, self.wait_for_ready = call.credentials, call.wait_for_ready
        self.compression = call.compression


def _bearer(key: str) -> Any:
    """Adds the key to every call. gRPC's own call credentials refuse connections without TLS."""
    header = ("authorization", f"Bearer {key}")

    def intercept(self: object, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        return continuation(_Details(details, (*(details.metadata or ()), header)), request)

    kinds = tuple(getattr(grpc, f"{kind}ClientInterceptor") for kind in _KINDS)
    return type("Bearer", kinds, dict.fromkeys(_METHODS, intercept))()


def _aio_bearers(key: str) -> list[grpc.aio.ClientInterceptor]:
    """One interceptor for each kind of call: grpc.aio takes only one kind from an object."""

    async def intercept(self: object, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        metadata = details.metadata or grpc.aio.Metadata()
        metadata.add("authorization", f"Bearer {key}")
        return await continuation(details._replace(metadata=metadata), request)

    return [
        type("Bearer", (getattr(grpc.aio, f"{kind}ClientInterceptor"),), {method: intercept})()
        for kind, method in zip(_KINDS, _METHODS, strict=True)
    ]
