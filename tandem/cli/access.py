"""The flags with which a command finds a server and gets into a guarded one."""

from __future__ import annotations

import argparse
import os

from tandem.access import Access


def add_server_flag(parser: argparse.ArgumentParser) -> None:
    """Where the gateway is; None when neither the flag nor the environment says so."""
    parser.add_argument(
        "--server",
        default=os.environ.get("TANDEM_SERVER") or None,
        help="gRPC address of a running gateway; unset takes the variable TANDEM_SERVER, "
        "and where that is unset too starts the services for this command",
    )


def add_access_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("access to the server")
    group.add_argument("--api-key", help="unset takes the variable TANDEM_API_KEY")
    group.add_argument(
        "--tls-ca", default="", metavar="PEM", help="encrypt, and check the server's certificate"
    )
    group.add_argument("--tls-cert", default="", metavar="PEM", help="certificate of this client")
    group.add_argument("--tls-key", default="", metavar="PEM", help="its private key")
    group.add_argument("--tls-server-name", default="", help="name in the server's certificate")


def access_of(options: argparse.Namespace) -> Access:
    """A key in the environment stays out of the list of processes."""
    key = options.api_key or os.environ.get("TANDEM_API_KEY", "")
    return Access(options.tls_ca, options.tls_cert, options.tls_key, options.tls_server_name, key)
