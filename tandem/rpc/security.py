"""TLS of servers from files that may be renewed while they run, and of the channels between tiers."""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from tandem.access import Access
from tandem.flags import FlagParser

log = logging.getLogger("tandem.security")


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
        state = self._stamp()
        configuration = self._configuration()

        # None says that nothing has changed; the stubs do not know it.
        def fetch() -> Any:
            nonlocal state
            try:
                stamp = self._stamp()
                if stamp == state:
                    return None
                renewed = self._configuration()
            except OSError as error:
                log.error("the old certificate stays in use: %s", error)
                return None
            state = stamp
            return renewed

        return grpc.dynamic_ssl_server_credentials(
            configuration, fetch, require_client_authentication=self.client_ca is not None
        )

    def ssl_context(self) -> ssl.SSLContext:
        """The same for HTTP and WebSocket, as the files are now."""
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
