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
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with Stack(config, on_progress=lambda line: print(line, file=sys.stderr)) as stack:
        print(f"tandem is ready: gRPC on {stack.address}", file=sys.stderr, flush=True)
        try:
            stack.wait()
        except KeyboardInterrupt:
            return 0
    return 0
