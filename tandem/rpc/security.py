"""TLS of servers from files that may be renewed while they run, and of the channels between tiers."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import grpc

from tandem.access import Access
from tandem.flags import FlagParser

log = logging.getLogger("tandem.security")

Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class ServerTls:
    """PEM files. With `client_ca` only clients with a certificate of that authority get in."""

    cert: Path
    key: Path
    client_ca: Path | None = None

    def credentials(self) -> grpc.ServerCredentials:
        """Credentials that follow the files: a renewed certificate serves the next connection.

        Raises OSError when a file cannot be read at the start; later the last good state stays in use.
        """
        followed = _Followed(self._stamp, self._configuration)

        # None says that nothing has changed; the stubs do not know it.
        def fetch() -> Any:
            return followed.current if followed.renew() else None

        return grpc.dynamic_ssl_server_credentials(
            followed.current, fetch, require_client_authentication=self.client_ca is not None
        )

    def ssl_context(self) -> ssl.SSLContext:
        """The same for HTTP and WebSocket."""
        followed = _Followed(self._stamp, self._context)

        # Called in every handshake, whether or not the client names a server.
        def take_current(connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
            followed.renew()
            connection.context = followed.current

        first = followed.current
        first.sni_callback = take_current
        return first

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.cert, self.key)
        if self.client_ca is not None:
            context.load_verify_locations(self.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        authority = self.client_ca.read_bytes() if self.client_ca is not None else None
        pairs = [(self.key.read_bytes(), self.cert.read_bytes())]
        return grpc.ssl_server_certificate_configuration(pairs, root_certificates=authority)

    def _stamp(self) -> tuple[tuple[int, int], ...]:
        files = [file for file in (self.cert, self.key, self.client_ca) if file is not None]
        return tuple((file.stat().st_mtime_ns, file.stat().st_size) for file in files)


class _Followed(Generic[Made]):
    """What `make` makes of files, made again when their stamp has changed."""

    def __init__(self, stamp: Callable[[], object], make: Callable[[], Made]) -> None:
        """Raises what `stamp` and `make` raise."""
        self._stamp, self._make = stamp, make
        self._made_of = stamp()
        self.current = make()

    def renew(self) -> bool:
        """Whether `current` is a new one; files that cannot be read leave the old one."""
        try:
            stamp = self._stamp()
            if stamp == self._made_of:
                return False
            self.current = self._make()
        except OSError as error:
            log.error("the old certificate stays in use: %s", error)
            return False
        self._made_of = stamp
        return True


@dataclass(frozen=True, slots=True)
class TlsFlags:
    """The --tls-* flags of a tier as they were given; empty means off."""

    cert: str = ""
    key: str = ""
    client_ca: str = ""
    ca: str = ""
    server_name: str = ""

    def server(self) -> ServerTls | None:
        """How this tier listens; None without TLS. ValueError when only half of a pair is given."""
        if bool(self.cert) != bool(self.key):
            raise ValueError("--tls-cert and --tls-key belong together")
        if not self.cert:
            if self.client_ca:
                raise ValueError("--tls-client-ca needs --tls-cert and --tls-key")
            return None
        return ServerTls(Path(self.cert), Path(self.key), Path(self.client_ca) if self.client_ca else None)

    def upstream(self) -> Access:
        """How this tier reaches the next one: with its own certificate as the client's."""
        if not self.ca:
            return Access()
        return Access(self.ca, self.cert, self.key, self.server_name)


SERVER_FLAGS = {
    "tls-cert": "PEM file of this tier's certificate; turns TLS on",
    "tls-key": "PEM file of its private key",
    "tls-client-ca": "PEM file of the authority that clients' certificates must come from",
}
UPSTREAM_FLAGS = {
    "tls-ca": "PEM file of the authority of the next tier's certificate; turns TLS to it on",
    "tls-server-name": "name in the next tier's certificate, where that is not the host of its address",
}


def add_tls_flags(flags: FlagParser, *, upstream: bool) -> None:
    """--tls-cert, --tls-key, --tls-client-ca, and for a tier with a tier behind it --tls-ca and its name."""
    for name, text in {**SERVER_FLAGS, **(UPSTREAM_FLAGS if upstream else {})}.items():
        flags.add(name, str, text)
