"""The `tandem` command: serve, transcribe, stream, encode, plan, bulk. Each subcommand is one module."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tandem import __version__
from tandem.cli import bulk, encode, fetch, health, key, plan, serve, stream, transcribe
from tandem.cli.usage import UsageError
from tandem.errors import TandemError
from tandem.launcher import LaunchError


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tandem", description="Serve and use LLM-based speech recognition.")
    parser.add_argument("--version", action="version", version=f"tandem {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    for module in (serve, transcribe, stream, encode, fetch, key, health, plan, bulk):
        module.add_parser(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (0 done, 1 failed, 2 bad usage, 130 interrupted)."""
    options = build_parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except UsageError as error:
        print(f"tandem {options.command}: {error}", file=sys.stderr)
        return 2
    except (TandemError, LaunchError, OSError) as error:
        print(f"tandem {options.command}: {error}", file=sys.stderr)
        return 1
    return code
