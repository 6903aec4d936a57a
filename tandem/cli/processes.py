"""How many encoder and decoder processes a command starts."""

from __future__ import annotations

import argparse
from dataclasses import replace

from tandem.cli.models import engine_options
from tandem.cli.usage import UsageError
from tandem.errors import InvalidRequest
from tandem.local import EngineOptions


def positive(text: str) -> int:
    """The value of a flag that counts something."""
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


def add_process_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("processes")
    group.add_argument(
        "--encoders", type=positive, help="that share the encoder's GPU; unset is as many as decoders"
    )
    group.add_argument(
        "--decoders", type=positive, default=1, help="that share the decoder's GPU and its memory"
    )


def process_options(options: argparse.Namespace) -> EngineOptions:
    """The flags of add_process_flags and add_model_flags as the services take them."""
    try:
        return replace(engine_options(options), encoders=options.encoders, decoders=options.decoders)
    except InvalidRequest as error:
        raise UsageError(str(error)) from error
