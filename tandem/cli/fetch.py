"""`tandem fetch`: bring a checkpoint from its hub into the local cache, before anything serves it."""

from __future__ import annotations

import argparse
import sys


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("fetch", help="download a checkpoint from its hub, or find it in the cache")
    parser.add_argument("model", help="id on the hub, or a directory")
    parser.add_argument("--hub", choices=("hf", "ms"), default="hf", help="hf: Hugging Face, ms: ModelScope")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Prints where the checkpoint is."""
    from tandem.checkpoint import CheckpointError, resolve_checkpoint

    try:
        print(resolve_checkpoint(options.model, options.hub))
    except CheckpointError as error:
        print(f"tandem fetch: {error}", file=sys.stderr)
        return 1
    return 0
