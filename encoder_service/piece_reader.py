"""Feeds the speaker network: any number of pieces of one length, in batches of few sizes on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from encoder_service.runner import Executor, GraphExecutor, execute

Network = Callable[[Tensor], Tensor]
"""Features [B, T, F] to frames [B, n, D], float32; T alone determines n."""

SIZES = (1, 4, 16, 32, 64)
"""Pieces in a batch of fixed size; the largest fills a GPU."""


def fixed_executor(device: torch.device, cuda_graphs: bool) -> Executor | None:
    """What runs the network on a device; None where batches may be of any size, on a CPU."""
    if device.type != "cuda":
        return None
    return GraphExecutor() if cuda_graphs else execute


def cut_fixed(pieces: int) -> Iterator[tuple[int, int]]:
    """(real pieces, size of their batch) until all are done; at most a third of a batch stays empty."""
    while pieces > 0:
        fits = max(size for size in SIZES if size <= pieces)
        above = next((size for size in SIZES if size >= pieces), fits)
        size = above if 2 * above <= 3 * pieces else fits
        yield min(pieces, size), size
        pieces -= size


def cut_even(pieces: int, most: int) -> Iterator[tuple[int, int]]:
    """As `cut_fixed`, in batches of `most` and one of what is left."""
    for start in range(0, pieces, most):
        real = min(most, pieces - start)
        yield real, real


class FixedNetwork:
    """The network on batches of SIZES, in buffers that never move, so that `executor` may replay them.

    What it returns is valid until its next call.
    """

    def __init__(self, network: Network, executor: Executor) -> None:
        self._network, self._executor = network, executor
        self._buffers: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, features: Tensor) -> Tensor:
        size, frames, _ = features.shape
        if frames not in self._buffers:
            given = features.new_zeros(SIZES[-1], *features.shape[1:])
            made = self._network(given[:1])
            self._buffers[frames] = given, made.new_zeros(SIZES[-1], *made.shape[1:])
        given, made = (buffer[:size] for buffer in self._buffers[frames])
        given.copy_(features)

        def read() -> None:
            made.copy_(self._network(given))

        self._executor((size, frames), read)
        return made
