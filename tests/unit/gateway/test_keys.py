"""Who comes without a key is told so, even while it sends: a real gRPC server and streaming call."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from gateway.keys import KeyInterceptor, KeyRing
from tandem.api_keys import new_key

PIECE = bytes(64 * 1024)


async def echo(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request


@contextlib.asynccontextmanager
async def echoing(keys: KeyRing) -> AsyncIterator[grpc.aio.StreamStreamMultiCallable[bytes, bytes]]:
    server = grpc.aio.server(interceptors=[KeyInterceptor(keys)])
    method: Any = grpc.stream_stream_rpc_method_handler(echo)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Service", {"Echo": method})])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel.stream_stream("/test.Service/Echo")
    await server.stop(None)


@pytest.fixture
def key_and_ring(tmp_path: Path) -> tuple[str, KeyRing]:
    key, line = new_key("tester")
    file = tmp_path / "keys"
    file.write_text(line + "\n", encoding="utf-8")
    return key, KeyRing(file)


async def test_who_sends_with_a_key_is_answered(key_and_ring: tuple[str, KeyRing]) -> None:
    key, ring = key_and_ring
    async with echoing(ring) as call_echo:
        call = call_echo(iter([PIECE] * 5), metadata=(("authorization", f"Bearer {key}"),))
        assert [answer async for answer in call] == [PIECE] * 5


async def test_who_sends_without_a_key_reads_the_refusal(key_and_ring: tuple[str, KeyRing]) -> None:
    """Not the INTERNAL that grpc.aio makes of a call whose end meets a write."""
    async with echoing(key_and_ring[1]) as call_echo:
        for _ in range(20):
            call = call_echo()
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                for _ in range(200):
                    await call.write(PIECE)
                await call.done_writing()
                await call.read()
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
