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
def stack(
    model: Path,
    engine: str,
    decoder_args: Sequence[str] = (),
    gateway_args: Sequence[str] = (),
    encoder_args: Sequence[str] = (),
    http_port: int = 0,
) -> Iterator[Stack]:
    """The three tiers on Unix sockets; HTTP on a port of 127.0.0.1 where one is given."""
    with tempfile.TemporaryDirectory(prefix="tandem-test-") as directory:
        root = Path(directory)
        config = StackConfig(
            str(model),
            Addresses.unix(root),
            engine=engine,
            decoder_args=decoder_args,
            gateway_args=gateway_args,
            encoder_args=encoder_args,
            http_port=http_port,
            log_dir=root,
        )
        with Stack(config) as running:
            yield running
