"""Streaming calls from the client's side: typed errors, no call left open, no failure lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import Any, TypeVar

import grpc
import grpc.aio

from tandem.rpc.status import from_rpc_error

Request = TypeVar("Request")


@contextlib.asynccontextmanager
async def streaming_call(
    method: Any, requests: Iterable[Request] | AsyncIterable[Request], timeout: float | None = None
) -> AsyncIterator[Any]:
    """Calls a stub's stream-stream `method` with these requests; iterate what it gives for the responses.

    Leaving it cancels what is left of the call, and whatever the requests wait for. Raises the peer's error,
    typed, and whatever was raised while making the requests: grpc.aio itself only cancels the call then, and
    whoever reads the responses would take that for a cancellation of their own.
    """
    failures: list[Exception] = []
    senders: list[asyncio.Task[Any]] = []
    call = method(_noting(requests, failures, senders), timeout=timeout)
    try:
        yield call
        # Whoever sent the last request may not know yet that it has been sent; grpc.aio formats a traceback
        # for everyone that is cancelled.
        await asyncio.sleep(0)
    except grpc.RpcError as error:
        raise from_rpc_error(error) from error
    except asyncio.CancelledError:
        if failures:
            raise failures[0] from None
        raise
    finally:
        # grpc.aio leaves the task that reads the requests to the garbage collector where the call is over.
        for task in (call, *senders):
            task.cancel()


async def _noting(
    requests: Iterable[Request] | AsyncIterable[Request],
    failures: list[Exception],
    senders: list[asyncio.Task[Any]],
) -> AsyncIterator[Request]:
    """The requests; notes what making them raises, and the task that asks for them."""
    task = asyncio.current_task()
    assert task is not None
    senders.append(task)
    try:
        if isinstance(requests, AsyncIterable):
            async for request in requests:
                yield request
        else:
            for request in requests:
                yield request
    except Exception as error:
        failures.append(error)
        raise
