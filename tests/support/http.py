"""A running stack with HTTP, as the tests of its protocols see it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tandem.launcher import Stack
from tests.support.ports import free_port
from tests.support.services import stack

PAGE = "http://page.example"
"""The origin that the stack lets in."""


@dataclass(frozen=True, slots=True)
class HttpStack:
    """Three tiers; `address` is host:port of HTTP and WebSocket."""

    stack: Stack
    address: str

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def grpc(self) -> str:
        return self.stack.address


@contextlib.contextmanager
def http_stack(
    model: Path, gateway_args: Sequence[str] = (), decoder_args: Sequence[str] = ()
) -> Iterator[HttpStack]:
    """A stack over the transformers engine whose HTTP lets pages of PAGE in."""
    port = free_port()
    with stack(
        model,
        "transformers",
        ["--dtype", "fp32", *decoder_args],
        ["--cors-origin", PAGE, *gateway_args],
        http_port=port,
    ) as running:
        yield HttpStack(running, f"127.0.0.1:{port}")
