"""Real tiers as processes, for tests."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tandem.launcher import Addresses, Stack, StackConfig, Tier, spawn, wait_ready

NANO = Path(__file__).parents[1] / "data" / "golden" / "nano"
"""A random checkpoint in the published layout with recorded outputs of the published implementation."""


@contextlib.contextmanager
def encoder(model: Path = NANO, arguments: Sequence[str] = ()) -> Iterator[str]:
    """The address of an encoder process."""
    with tempfile.TemporaryDirectory(prefix="tandem-test-") as directory:
        address = f"unix:{directory}/encoder.sock"
        flags = ["--model", str(model), "--listen", address, *arguments]
        tier: Tier = spawn("encoder", "encoder_service", flags, address, Path(directory))
        try:
            wait_ready([tier], timeout=120)
            yield address
        finally:
            tier.end(grace=10)


@contextlib.contextmanager
def stack(model: Path, engine: str, decoder_args: Sequence[str] = ()) -> Iterator[Stack]:
    """The three tiers on Unix sockets."""
    with tempfile.TemporaryDirectory(prefix="tandem-test-") as directory:
        root = Path(directory)
        config = StackConfig(
            str(model), Addresses.unix(root), engine=engine, log_dir=root, decoder_args=decoder_args
        )
        with Stack(config) as running:
            yield running
