"""Typed errors through a real gRPC server and back, health, drain."""

from __future__ import annotations

import asyncio
import gc
import socket
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tandem import errors
from tandem.errors import FieldViolation, TandemError
from tandem.rpc import channels, handlers
from tandem.rpc.calls import streaming_call
from tandem.rpc.channels import connect
from tandem.rpc.server import LIVENESS, ServerConfig, TierServer
from tandem.rpc.status import from_rpc_error, to_status
from tandem.tensor.v1 import tensor_pb2 as pb
from tests.support.ports import free_port

SERVICE = "test.v1.TestService"


class Servicer:
    """Fails as `failure` says; streams two messages first."""

    def __init__(self) -> None:
        self.failure: BaseException | None = None
        self.release = asyncio.Event()
        self.work: Callable[[], Awaitable[object]] = self.release.wait

    @handlers.unary
    async def call(self, request: pb.Tensor, context: object) -> pb.Tensor:
        if self.failure is not None:
            raise self.failure
        await self.release.wait()
        return request

    @handlers.streaming
    async def stream(self, request: pb.Tensor, context: object) -> AsyncIterator[pb.Tensor]:
        yield request
        yield request
        if self.failure is not None:
            raise self.failure

    @handlers.streaming
    async def upload(self, requests: AsyncIterator[pb.Tensor], context: object) -> AsyncIterator[pb.Tensor]:
        async for request in requests:
            if self.failure is not None:
                raise self.failure
            yield request

    @handlers.streaming
    async def receive(self, request: pb.Tensor, context: object) -> AsyncIterator[pb.Tensor]:
        await self.work()
        yield request

    @handlers.unary
    async def receive_at_once(self, request: pb.Tensor, context: object) -> pb.Tensor:
        await self.work()
        return request


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[tuple[Servicer, TierServer, grpc.aio.Channel]]:
    servicer = Servicer()
    server = TierServer(ServerConfig(f"unix:{tmp_path}/s.sock", drain_seconds=5), [SERVICE])
    codec: dict[str, Any] = {
        "request_deserializer": pb.Tensor.FromString,
        "response_serializer": pb.Tensor.SerializeToString,
    }
    methods = {
        "Call": grpc.unary_unary_rpc_method_handler(servicer.call, **codec),
        "Upload": grpc.stream_stream_rpc_method_handler(servicer.upload, **codec),
        "Stream": grpc.unary_stream_rpc_method_handler(servicer.stream, **codec),
        "Receive": grpc.unary_stream_rpc_method_handler(servicer.receive, **codec),
        "ReceiveAtOnce": grpc.unary_unary_rpc_method_handler(servicer.receive_at_once, **codec),
    }
    server.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    await server.start()
    async with connect(server.address) as channel:
        yield servicer, server, channel
    await server.stop()


def caller(channel: grpc.aio.Channel, method: str = "Call", kind: str = "unary_unary") -> Any:
    return getattr(channel, kind)(
        f"/{SERVICE}/{method}",
        request_serializer=pb.Tensor.SerializeToString,
        response_deserializer=pb.Tensor.FromString,
    )


@pytest.mark.parametrize(
    "error",
    [
        errors.InvalidAudio("bad audio", violations=(FieldViolation("audio", "truncated"),)),
        errors.LimitExceeded("too long", metadata={"limit": "60"}),
        errors.Overloaded("queue full", retry_after=1.5),
        errors.CapabilityMissing("no CTC"),
        errors.ModelMismatch("other model"),
        errors.Unavailable("draining"),
    ],
)
async def test_typed_errors_cross_the_wire(served: Any, error: TandemError) -> None:
    servicer, _, channel = served
    servicer.failure = error
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await caller(channel)(pb.Tensor(), timeout=5)
    rebuilt = from_rpc_error(caught.value)
    assert type(rebuilt) is type(error)
    assert caught.value.code() is error.code
    assert str(rebuilt) == str(error)
    assert rebuilt.violations == error.violations
    assert rebuilt.retry_after == error.retry_after
    assert rebuilt.metadata == error.metadata


async def test_an_unexpected_exception_shows_nothing_of_itself(served: Any) -> None:
    servicer, _, channel = served
    servicer.failure = ValueError("secret path /etc/x")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await caller(channel)(pb.Tensor(), timeout=5)
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in (caught.value.details() or "")


async def test_a_stream_keeps_what_was_sent_before_the_error(served: Any) -> None:
    servicer, _, channel = served
    servicer.failure = errors.Overloaded("later", retry_after=2)
    received = []
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for message in caller(channel, "Stream", "unary_stream")(pb.Tensor(data=b"x"), timeout=5):
            received.append(message.data)
    assert received == [b"x", b"x"]
    assert from_rpc_error(caught.value).retry_after == 2


async def test_health_names_and_drain_finish_running_calls(served: Any) -> None:
    servicer, server, channel = served
    health: Any = health_pb2_grpc.HealthStub(channel)

    async def status(name: str) -> int:
        reply = await health.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
        return int(reply.status)

    serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
    assert [await status(LIVENESS), await status("")] == [serving, not_serving]
    await server.ready()
    assert [await status(""), await status(SERVICE)] == [serving, serving]

    running = asyncio.ensure_future(caller(channel)(pb.Tensor(data=b"y"), timeout=10))
    await asyncio.sleep(0.1)
    stopping = asyncio.ensure_future(server.stop())
    await asyncio.sleep(0.1)
    servicer.release.set()
    assert (await running).data == b"y"
    await stopping


@pytest.mark.parametrize("flag", ["listen", "plain_health"])
async def test_a_taken_port_is_an_oserror(flag: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        places = {"listen": f"unix:{tmp_path}/s.sock", "plain_health": "", flag: address}
        server = TierServer(ServerConfig(places["listen"], plain_health=places["plain_health"]), [SERVICE])
        with pytest.raises(OSError, match=f"cannot listen on {address}: in use"):
            await server.start()
        await server.stop()


async def test_a_port_that_does_not_exist_is_not_another_one() -> None:
    """gRPC takes them modulo 65536."""
    server = TierServer(ServerConfig(f"127.0.0.1:{free_port() + 65536}"), [SERVICE])
    with pytest.raises(OSError, match="there is no such port"):
        await server.start()
    await server.stop()


async def test_two_servers_do_not_share_an_address_for_health(tmp_path: Path) -> None:
    """gRPC lets servers share a port unless it is told not to."""
    health = f"127.0.0.1:{free_port()}"
    servers = [
        TierServer(ServerConfig(f"unix:{tmp_path}/{name}.sock", plain_health=health), [SERVICE])
        for name in ("first", "second")
    ]
    await servers[0].start()
    with pytest.raises(OSError, match=f"cannot listen on {health}: in use"):
        await servers[1].start()
    for server in servers:
        await server.stop()


async def test_a_call_that_comes_while_the_server_stops_may_be_sent_again(tmp_path: Path) -> None:
    """grpc answers CANCELLED to calls that it has read and not taken up."""
    servicer, seen, told = Servicer(), set[grpc.StatusCode](), set[type[TandemError]]()
    servicer.release.set()
    handler = grpc.unary_unary_rpc_method_handler(
        servicer.call, pb.Tensor.FromString, pb.Tensor.SerializeToString
    )

    async def call(channel: grpc.aio.Channel) -> None:
        try:
            assert (await caller(channel)(pb.Tensor(data=b"z"), timeout=20)).data == b"z"
        except grpc.aio.AioRpcError as error:
            seen.add(error.code())
            told.add(type(from_rpc_error(error)))

    for trial in range(50):
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Call": handler}),))
        server.add_insecure_port(f"unix:{tmp_path}/{trial}.sock")
        await server.start()
        async with connect(f"unix:{tmp_path}/{trial}.sock") as channel:
            await call(channel)
            calls = [asyncio.create_task(call(channel)) for _ in range(300)]
            for _ in range(trial % 10):
                await asyncio.sleep(0)
            await asyncio.gather(server.stop(5), *calls)
        if grpc.StatusCode.CANCELLED in seen:
            break
    assert grpc.StatusCode.CANCELLED in seen
    assert told == {errors.Unavailable}


@pytest.mark.parametrize(
    ("details", "trailing", "expected"),
    [
        ("Internal error from Core", (), errors.Unavailable),
        ("Internal error from Core, says the server", (), TandemError),
        (
            "Internal error from Core",
            to_status(errors.InternalError("Internal error from Core")),
            errors.InternalError,
        ),
    ],
)
def test_a_call_that_breaks_while_it_is_written_to_may_be_made_again(
    details: str, trailing: Any, expected: type[TandemError]
) -> None:
    """grpc.aio says so itself, without a status of the server's."""
    metadata = trailing and (("grpc-status-details-bin", trailing.SerializeToString()),)
    error = grpc.aio.AioRpcError(
        grpc.StatusCode.INTERNAL, grpc.aio.Metadata(), grpc.aio.Metadata(*metadata), details=details
    )
    assert type(from_rpc_error(error)) is expected


async def test_a_client_that_is_still_sending_gets_the_status_and_not_an_internal_error(served: Any) -> None:
    servicer, _, channel = served
    servicer.failure = errors.InvalidAudio("bad from the start")

    async def pieces() -> AsyncIterator[pb.Tensor]:
        for _ in range(20):
            yield pb.Tensor(data=bytes(50_000))

    for _ in range(30):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in caller(channel, "Upload", "stream_stream")(pieces(), timeout=5):
                continue
        assert type(from_rpc_error(caught.value)) is errors.InvalidAudio


async def test_what_is_no_message_after_the_failure_changes_nothing_about_it(served: Any) -> None:
    servicer, _, channel = served
    servicer.failure = errors.InvalidAudio("bad from the start")
    upload = channel.stream_stream(f"/{SERVICE}/Upload")

    async def pieces() -> AsyncIterator[bytes]:
        yield pb.Tensor(data=b"x").SerializeToString()
        yield b"\xff\xff\xff\xff"

    for _ in range(10):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in upload(pieces(), timeout=5):
                continue
        assert type(from_rpc_error(caught.value)) is errors.InvalidAudio


class Received:
    """What a call has got so far."""


async def test_a_call_that_failed_lets_go_of_what_it_had_received(served: Any) -> None:
    servicer, _, channel = served
    kept = weakref.WeakSet[Received]()

    async def fail() -> None:
        received = Received()
        kept.add(received)
        await asyncio.sleep(0)
        raise errors.DeadlineExceeded("no more came")

    async def call(request: pb.Tensor) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in caller(channel, "Receive", "unary_stream")(request, timeout=5):
                continue
        assert type(from_rpc_error(caught.value)) is errors.DeadlineExceeded
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await caller(channel, "ReceiveAtOnce")(request, timeout=5)
        assert type(from_rpc_error(caught.value)) is errors.DeadlineExceeded

    servicer.work = fail
    gc.collect()
    gc.disable()  # It is late for large buffers: they are few objects.
    try:
        for _ in range(5):
            await call(pb.Tensor())
        async with asyncio.timeout(5):
            while kept:
                await asyncio.sleep(0.01)
    finally:
        gc.enable()


async def test_calls_of_a_host_that_is_gone_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "KEEPALIVE_MS", 500)
    # The kernels of this test go on talking: gRPC itself would give a host whose kernel does a minute.
    options = [*channels.server_options(), ("grpc.http2.ping_timeout_ms", 2000)]
    ended, is_gone = asyncio.Event(), asyncio.Event()

    async def upload(requests: AsyncIterator[bytes], context: object) -> AsyncIterator[bytes]:
        try:
            async for request in requests:
                yield request
        finally:
            ended.set()

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            if not is_gone.is_set():
                sink.write(data)
        sink.close()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, to_server), pump(from_server, writer))

    async def pieces() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    server = grpc.aio.server(options=options)
    methods: dict[str, Any] = {"Upload": grpc.stream_stream_rpc_method_handler(upload)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    proxy = await asyncio.start_server(forward, "127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{proxy.sockets[0].getsockname()[1]}") as channel:
        method: Any = channel.stream_stream(f"/{SERVICE}/Upload")
        call = method(pieces())
        assert await call.read() == b"x"
        await asyncio.sleep(3.5)
        assert not ended.is_set()  # Whoever answers pings may say nothing else for as long as it likes.
        is_gone.set()
        await asyncio.wait_for(ended.wait(), 10)
    proxy.close()
    await server.stop(None)


async def test_what_fails_while_making_requests_reaches_whoever_reads_the_responses(served: Any) -> None:
    _, _, channel = served

    async def pieces() -> AsyncIterator[pb.Tensor]:
        yield pb.Tensor(data=b"x")
        raise errors.InvalidAudio("the second piece cannot be made")

    async def read() -> None:
        async with streaming_call(caller(channel, "Upload", "stream_stream"), pieces()) as call:
            async for _ in call:
                continue

    with pytest.raises(errors.InvalidAudio, match="second piece"):
        await asyncio.wait_for(read(), 5)


async def test_requests_that_wait_for_something_end_with_a_call_that_fails(served: Any) -> None:
    servicer, _, channel = served
    servicer.failure = errors.Unavailable("going down")
    ended = asyncio.Event()

    async def waiting() -> AsyncIterator[pb.Tensor]:
        try:
            yield pb.Tensor(data=b"x")
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(errors.Unavailable):
        async with streaming_call(caller(channel, "Upload", "stream_stream"), waiting()) as call:
            async for _ in call:
                continue
    await asyncio.wait_for(ended.wait(), 5)


async def test_cancelling_the_reader_of_a_streaming_call_stays_a_cancellation(served: Any) -> None:
    _, _, channel = served

    async def endless() -> AsyncIterator[pb.Tensor]:
        yield pb.Tensor(data=b"x")
        await asyncio.Event().wait()

    async def read() -> None:
        async with streaming_call(caller(channel, "Upload", "stream_stream"), endless()) as call:
            async for _ in call:
                continue

    reading = asyncio.ensure_future(read())
    await asyncio.sleep(0.2)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading


def test_each_reason_is_one_errors() -> None:
    """Clients rebuild errors by their reason, in gateways' processes too."""
    import gateway.api.http  # noqa: F401

    known, waiting = [], [TandemError]
    while waiting:
        for error in waiting.pop().__subclasses__():
            known.append(error)
            waiting.append(error)
    reasons = [error.reason for error in known]
    assert len(reasons) == len(set(reasons))
