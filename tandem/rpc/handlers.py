"""Decorators for servicer methods: typed errors become a status with details, others a clean INTERNAL."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import uuid
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn, TypeVar, cast

import grpc
import grpc.aio
from google.rpc import status_pb2
from grpc_status import rpc_status

from tandem.errors import Cancelled, InternalError, TandemError
from tandem.rpc.metrics import measured
from tandem.rpc.status import from_rpc_error, to_status

log = logging.getLogger("tandem.rpc")

_DRAIN_SECONDS = 0.25

Response = TypeVar("Response")
Context = grpc.aio.ServicerContext[Any, Any]


def unary(method: Callable[..., Awaitable[Response]]) -> Callable[..., Awaitable[Response]]:
    """Wrap `async def Method(self, request_or_iterator, context) -> Response`."""

    @functools.wraps(method)
    async def wrapper(self: object, request: object, context: Context) -> Response:
        try:
            with measured(method.__name__):
                return await method(self, request, context)
        except BaseException as error:
            if isinstance(error, Exception):
                await drain(request)
            await _fail(error, context)

    return wrapper


def streaming(method: Callable[..., AsyncIterator[Response]]) -> Callable[..., AsyncIterator[Response]]:
    """Wrap `async def Method(self, request_or_iterator, context)` that yields responses."""

    @functools.wraps(method)
    async def wrapper(self: object, request: object, context: Context) -> AsyncIterator[Response]:
        try:
            generator = cast(AsyncGenerator[Response, None], method(self, request, context))
            with measured(method.__name__):
                async with contextlib.aclosing(generator) as responses:
                    async for response in responses:
                        yield response
        except GeneratorExit:
            raise
        except BaseException as error:
            if isinstance(error, Exception):
                await drain(request)
            await _fail(error, context)

    return wrapper


async def drain(request: object) -> None:
    """Read what a client is still sending, for a moment, before its call is ended with an error.

    A grpc.aio client whose write meets the end of the call reports INTERNAL, not the status it was sent.
    What is wrong with what is thrown away, bytes that are no message say, changes nothing about that error.
    """
    if isinstance(request, AsyncIterable):
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_DRAIN_SECONDS):
                async for _ in request:
                    continue


async def _fail(error: BaseException, context: Context) -> NoReturn:
    if not isinstance(error, Exception) or isinstance(error, grpc.aio.AbortError):
        raise error
    told = from_rpc_error(error) if isinstance(error, grpc.RpcError) else error
    status = status_of(told)
    # gRPC's end of the call has the error as its context, and is part of a cycle. With the error's frames all
    # that the call had received would stay until the next full garbage collection, which counts no bytes.
    error.__traceback__ = None
    if isinstance(told, Cancelled):
        await context.abort(told.code, str(told))
    await context.abort_with_status(rpc_status.to_status(status))
    raise AssertionError("abort does not return")


def status_of(error: Exception) -> status_pb2.Status:
    """What the caller is told of an error. One that is not typed is a fault of ours, and logged."""
    if isinstance(error, TandemError):
        return to_status(error)
    request_id = uuid.uuid4().hex[:16]
    log.error("request %s failed", request_id, exc_info=error)
    return to_status(InternalError(f"internal error, see the log for request {request_id}"), request_id)
