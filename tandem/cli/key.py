"""`tandem key`: a new API key for a gateway."""

from __future__ import annotations

import argparse
import sys

from tandem.api_keys import new_key
from tandem.cli.usage import UsageError


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("key", help="make an API key: printed once, its hash goes to the gateway")
    parser.add_argument("name", help="whose key it is")
    parser.add_argument("--file", help="append the hash to this file, which --api-keys of the gateway names")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """The key on standard output; the file's line too unless it was appended."""
    try:
        key, line = new_key(options.name)
    except ValueError as error:
        raise UsageError(str(error)) from error
    print(key)
    if options.file:
        with open(options.file, "a", encoding="utf-8") as file:
            file.write(line + "\n")
    else:
        print(f"for the file of --api-keys: {line}", file=sys.stderr)
    return 0
