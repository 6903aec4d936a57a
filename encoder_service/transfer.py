"""Copies between host and device that wait for nothing: pinned buffers, side streams, events."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


class Transfer:
    """Work of one engine on one device: a stream for computing, one for each direction of copying.

    Without `overlap` all three are the current stream; kernels of an `urgent` one go before those of others.
    On a CPU everything happens at once and nothing is copied.
    """

    def __init__(self, device: torch.device, overlap: bool = True, urgent: bool = False) -> None:
        self.device = device
        self._cuda = device.type == "cuda"
        if self._cuda:
            self._compute, self._up, self._down = (_stream(device, overlap, urgent) for _ in range(3))

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """Whatever is launched inside runs on the stream for computing."""
        with torch.cuda.stream(self._compute) if self._cuda else contextlib.nullcontext():
            yield

    def staging(self, size: int, dtype: torch.dtype) -> Tensor:
        """A host buffer [size] for `up`, not initialised."""
        return torch.empty(size, dtype=dtype, pin_memory=self._cuda)

    def up(self, staged: Tensor) -> Tensor:
        """A staged buffer on the device, copied beside what is being computed; call it inside `computing`."""
        if not self._cuda:
            return staged
        with torch.cuda.stream(self._up):
            there = staged.to(self.device, non_blocking=True)
        self._compute.wait_stream(self._up)
        there.record_stream(self._compute)
        return there

    def borrow(self, tensor: Tensor, owner: Transfer) -> None:
        """Make what `owner` has sent up usable here too; call it right after."""
        if self._cuda and owner is not self:
            self._compute.wait_stream(owner._up)
            tensor.record_stream(self._compute)

    def table(self, array: npt.NDArray[np.int32]) -> Tensor:
        """A small array on the device, in the order of the computing stream."""
        host = torch.from_numpy(array)
        return host.pin_memory().to(self.device, non_blocking=True) if self._cuda else host

    def down(self, *tensors: Tensor) -> Landing:
        """Copies of tensors for the host, made beside what is computed after this call.

        The tensors must not change any more.
        """
        if not self._cuda:
            return Landing(tensors, None)
        self._down.wait_stream(self._compute)
        with torch.cuda.stream(self._down):
            landed = tuple(tensor.to("cpu", non_blocking=True) for tensor in tensors)
            # Whoever waits for it sleeps: by default it would spin for as long as the batch takes.
            event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            event.record(self._down)
        for tensor in tensors:
            tensor.record_stream(self._down)
        return Landing(landed, event)


class Landing:
    """Tensors on their way to the host."""

    def __init__(self, tensors: tuple[Tensor, ...], event: torch.cuda.Event | None) -> None:
        self._tensors, self._event = tensors, event

    def wait(self) -> tuple[Tensor, ...]:
        """The tensors once they are there; other threads and processes have the core meanwhile.

        Those of a GPU lie in page-locked memory, which is to be given back soon.
        """
        if self._event is not None:
            self._event.synchronize()
        return self._tensors

    def take(self) -> tuple[Tensor, ...]:
        """The same in ordinary memory, to keep: to free page-locked memory after a GPU is lost aborts."""
        tensors = self.wait()
        return tensors if self._event is None else tuple(tensor.clone() for tensor in tensors)


def _stream(device: torch.device, own: bool, urgent: bool) -> torch.cuda.Stream:
    if not own:
        return torch.cuda.current_stream(device)
    return torch.cuda.Stream(device, priority=-1 if urgent else 0)  # type: ignore[no-untyped-call]
