"""`tandem serve`: the three tiers as processes of one machine."""

from __future__ import annotations

import argparse
import signal
import sys

from tandem.cli.models import add_model_flags, decoder_flags, encoder_flags, resolve
from tandem.launcher import Addresses, Stack, StackConfig


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("serve", help="start gateway, encoder and decoder on this machine")
    add_model_flags(parser)
    ports = parser.add_argument_group("addresses")
    ports.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for all")
    ports.add_argument("--port", type=int, default=50051, help="gateway gRPC")
    ports.add_argument("--http-port", type=int, default=8899, help="gateway HTTP and WebSocket; 0 for none")
    ports.add_argument(
        "--cors-origin", action="append", default=[], help='origin of pages that may call HTTP, "*" for all'
    )
    ports.add_argument("--encoder-port", type=int, default=50052)
    ports.add_argument("--decoder-port", type=int, default=50053)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Start, say when ready, and stay until SIGINT, SIGTERM or the end of a tier."""
    config = StackConfig(
        model=resolve(options.model),
        hub=options.hub,
        engine=options.engine,
        addresses=Addresses.tcp(options.host, options.port, options.encoder_port, options.decoder_port),
        encoder_args=encoder_flags(options),
        decoder_args=decoder_flags(options),
        gateway_args=[flag for origin in options.cors_origin for flag in ("--cors-origin", origin)],
        http_host=options.host,
        http_port=options.http_port,
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with Stack(config, on_progress=lambda line: print(line, file=sys.stderr)) as stack:
        http = f", HTTP on http://{options.host}:{options.http_port}" if options.http_port else ""
        print(f"tandem is ready: gRPC on {stack.address}{http}", file=sys.stderr, flush=True)
        try:
            stack.wait()
        except KeyboardInterrupt:
            return 0
    return 0
