"""`tandem serve`: the three tiers as processes of one machine."""

from __future__ import annotations

import argparse
import os
import signal
import sys

from tandem.cli.models import add_model_flags, resolve
from tandem.cli.processes import add_process_flags, process_options
from tandem.launcher import MAX_PORT, Addresses, Stack, StackConfig, host_port


def port(text: str) -> int:
    """The value of a flag that names a TCP port."""
    if not 1 <= (value := int(text)) <= MAX_PORT:
        raise argparse.ArgumentTypeError(f"{value} is not between 1 and {MAX_PORT}")
    return value


def port_or_none(text: str) -> int:
    """The same, 0 for none."""
    return 0 if text == "0" else port(text)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("serve", help="start gateway, encoder and decoder on this machine")
    add_model_flags(parser)
    add_process_flags(parser)
    ports = parser.add_argument_group("addresses")
    ports.add_argument(
        "--host",
        default="127.0.0.1",
        help="address that the gateway listens on, 0.0.0.0 for all; encoder and decoder stay on 127.0.0.1",
    )
    ports.add_argument("--port", type=port, default=50051, help="gateway gRPC")
    ports.add_argument(
        "--http-port", type=port_or_none, default=8899, help="gateway HTTP and WebSocket; 0 for none"
    )
    ports.add_argument(
        "--cors-origin", action="append", default=[], help='origin of pages that may call HTTP, "*" for all'
    )
    ports.add_argument(
        "--realtime-port", type=port_or_none, default=10095, help="real-time WebSocket service; 0 for none"
    )
    ports.add_argument("--encoder-port", type=port, default=50052, help="further ones are 10 apart")
    ports.add_argument("--decoder-port", type=port, default=50053, help="further ones are 10 apart")
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


def _listening(options: argparse.Namespace) -> str:
    """Where the gateway is reached, in words."""
    secure = "s" if os.environ.get("TANDEM_GATEWAY_TLS_CERT") else ""
    places = [f"gRPC on {host_port(options.host, options.port)}"]
    if options.http_port:
        places.append(f"HTTP on http{secure}://{host_port(options.host, options.http_port)}")
    if options.realtime_port:
        places.append(f"live on ws{secure}://{host_port(options.host, options.realtime_port)}")
    return ", ".join(places)


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
        print(f"tandem is ready: {_listening(options)}", file=sys.stderr, flush=True)
        try:
            stack.wait()
        except KeyboardInterrupt:
            return 0
    return 0
