"""`tandem serve`: the three tiers as processes of one machine."""

from __future__ import annotations

import argparse
import signal
import sys

from tandem.cli.models import add_model_flags, resolve
from tandem.cli.processes import add_process_flags, process_options
from tandem.launcher import Addresses, Stack, StackConfig


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("serve", help="start gateway, encoder and decoder on this machine")
    add_model_flags(parser)
    add_process_flags(parser)
    ports = parser.add_argument_group("addresses")
    ports.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for all")
    ports.add_argument("--port", type=int, default=50051, help="gateway gRPC")
    ports.add_argument("--http-port", type=int, default=8899, help="gateway HTTP and WebSocket; 0 for none")
    ports.add_argument(
        "--cors-origin", action="append", default=[], help='origin of pages that may call HTTP, "*" for all'
    )
    ports.add_argument(
        "--realtime-port", type=int, default=10095, help="real-time WebSocket service; 0 for none"
    )
    ports.add_argument("--encoder-port", type=int, default=50052, help="further ones are 10 apart")
    ports.add_argument("--decoder-port", type=int, default=50053, help="further ones are 10 apart")
    live = parser.add_argument_group("real-time WebSocket service")
    live.add_argument("--language", default="", help="of sessions that name none")
    live.add_argument("--hotword-file", default="", help="hotwords of sessions that bring none, one a line")
    live.add_argument("--postprocess-hotword-file", default="", help="replacements, wrong=>right, one a line")
    live.add_argument("--enable-spk", action="store_true", help="tell speakers apart, asked or not")
    live.add_argument("--endpoint-mode", choices=("server", "client"), default="server")
    parser.set_defaults(run=run)


def _gateway_flags(options: argparse.Namespace) -> list[str]:
    origins = [flag for origin in options.cors_origin for flag in ("--cors-origin", origin)]
    live = ["--language", options.language, "--hotword-file", options.hotword_file]
    live += ["--postprocess-hotword-file", options.postprocess_hotword_file]
    live += ["--enable-spk", str(options.enable_spk), "--endpoint-mode", options.endpoint_mode]
    return [*origins, *live]


def run(options: argparse.Namespace) -> int:
    """Start, say when ready, and stay until SIGINT, SIGTERM or a tier that cannot be kept running."""
    engine = process_options(options)
    config = StackConfig(
        model=resolve(engine.model),
        hub=engine.hub,
        engine=engine.engine,
        addresses=Addresses.tcp(
            options.host,
            options.port,
            options.encoder_port,
            options.decoder_port,
            engine.encoder_count(),
            engine.decoders,
        ),
        encoder_args=engine.encoder_args(),
        decoder_args=engine.decoder_args(),
        gateway_args=_gateway_flags(options),
        http_host=options.host,
        http_port=options.http_port,
        realtime_port=options.realtime_port,
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with Stack(config, on_progress=lambda line: print(line, file=sys.stderr)) as stack:
        http = f", HTTP on http://{options.host}:{options.http_port}" if options.http_port else ""
        live = f", live on ws://{options.host}:{options.realtime_port}" if options.realtime_port else ""
        print(f"tandem is ready: gRPC on {stack.address}{http}{live}", file=sys.stderr, flush=True)
        try:
            stack.wait()
        except KeyboardInterrupt:
            return 0
    return 0
