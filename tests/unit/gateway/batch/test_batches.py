"""Batches over a real gRPC server and a recognizer that does what a test says: limits, turns, cancelling."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
import pytest

from gateway.api.grpc_batch import BatchServicer
from gateway.batch.manager import BatchLimits, BatchManager
from gateway.keys import KeyInterceptor, KeyRing
from gateway.pipeline import Recognizer
from gateway.service import GatewayService, ServiceLimits
from tandem.access import Access
from tandem.api_keys import new_key
from tandem.asr.v1 import batch_pb2 as pb
from tandem.asr.v1 import batch_pb2_grpc
from tandem.errors import InvalidAudio, Overloaded, Unavailable
from tandem.results import RecognizeOptions, Segment, Transcript
from tandem.rpc.status import from_rpc_error

KIB = 1024


class Script:
    """Recognises text; b"wait" waits for `release`, b"bad" is no audio, b"bug" breaks."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.order: list[bytes] = []
        self.failures: list[Exception] = []
        self.cancelled = 0

    async def recognize(
        self,
        audio: Path,
        options: RecognizeOptions,
        on_segment: Callable[[Segment], None],
        on_audio: Callable[[float], None],
    ) -> Transcript:
        data = audio.read_bytes()
        self.order.append(data[:8].rstrip(b"."))
        if self.failures:
            raise self.failures.pop(0)
        if data.startswith(b"bad"):
            raise InvalidAudio("no audio")
        if data.startswith(b"bug"):
            raise RuntimeError("a secret")
        if data.startswith(b"wait"):
            on_audio(10.0)
            on_segment(Segment("first", 0, 5.0))
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        return Transcript(data[:8].decode(), (), 10.0, language=options.language)


class Batches:
    """The server, its parts, and a stub."""

    def __init__(self, script: Script, manager: BatchManager, stub: Any, address: str) -> None:
        self.script = script
        self.manager = manager
        self.stub: batch_pb2_grpc.BatchServiceAsyncStub = stub
        self._address = address

    @contextlib.asynccontextmanager
    async def of(self, key: str) -> AsyncIterator[Batches]:
        """The same server for the holder of an API key."""
        async with Access(api_key=key).aio_channel(self._address, ()) as channel:
            stub = batch_pb2_grpc.BatchServiceStub(channel)
            yield Batches(self.script, self.manager, stub, self._address)

    async def send(self, *audio: bytes, batch_id: str = "", keep_open: bool = False) -> pb.Batch:
        """Upload recordings whose keys are their first bytes."""
        start = pb.BatchStart(batch_id=batch_id, keep_open=keep_open)
        answer = await self.stub.BatchRecognize(messages(start, audio))
        return answer.batch

    async def get(self, batch_id: str) -> pb.Batch:
        return (await self.stub.GetBatch(pb.GetBatchRequest(batch_id=batch_id))).batch

    async def watch(self, batch_id: str, skip: int = 0) -> list[pb.WatchBatchResponse]:
        call = self.stub.WatchBatch(pb.WatchBatchRequest(batch_id=batch_id, skip_results=skip))
        return [message async for message in call]


def messages(start: pb.BatchStart, audio: Iterable[bytes]) -> Iterator[pb.BatchRecognizeRequest]:
    yield pb.BatchRecognizeRequest(start=start)
    for data in audio:
        yield pb.BatchRecognizeRequest(recording=pb.BatchRecording(key=data[:8].decode().rstrip(".")))
        yield pb.BatchRecognizeRequest(chunk=data)


@contextlib.asynccontextmanager
async def serving(folder: Path, limits: BatchLimits, keys: KeyRing | None = None) -> AsyncIterator[Batches]:
    service, script = GatewayService(ServiceLimits(64 * KIB, 3600.0)), Script()
    service.recognizer = cast(Recognizer, script)
    address = f"unix:{folder}/b.sock"
    server = grpc.aio.server(interceptors=[KeyInterceptor(keys)] if keys else [])
    async with BatchManager(service, limits) as manager:
        batch_pb2_grpc.add_BatchServiceServicer_to_server(BatchServicer(service, manager), server)
        server.add_insecure_port(address)
        await server.start()
        async with grpc.aio.insecure_channel(address) as channel:
            yield Batches(script, manager, batch_pb2_grpc.BatchServiceStub(channel), address)
        await server.stop(0)


@pytest.fixture
async def batches(tmp_path: Path) -> AsyncIterator[Batches]:
    async with serving(tmp_path, BatchLimits(parallel=2)) as running:
        yield running


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def test_each_recording_has_its_own_outcome(batches: Batches) -> None:
    batch = await batches.send(b"one", b"bad", b"bug", b"two")
    told = await batches.watch(batch.batch_id)
    results = {message.result.key: message.result for message in told if message.HasField("result")}
    assert {key: results[key].response.text for key in ("one", "two")} == {"one": "one", "two": "two"}
    assert results["bad"].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert results["bug"].error.code == grpc.StatusCode.INTERNAL.value[0]
    assert "secret" not in results["bug"].error.message
    assert told[-1].progress.state == pb.Batch.STATE_DONE
    assert told[-1].progress.progress_percent == 100
    now = await batches.get(batch.batch_id)
    names = [pb.BatchRecordingStatus.State.Name(item.state) for item in now.recordings]
    assert names == ["STATE_SUCCEEDED", "STATE_FAILED", "STATE_FAILED", "STATE_SUCCEEDED"]
    assert now.expire_time.seconds - now.create_time.seconds == pytest.approx(24 * 3600, abs=2)


async def test_progress_follows_the_segments(batches: Batches) -> None:
    batch = await batches.send(b"wait1...", b"one.....")
    await until(lambda: batches.script.order == [b"wait1", b"one"])
    await asyncio.sleep(0.05)
    now = await batches.get(batch.batch_id)
    assert now.state == pb.Batch.STATE_RUNNING
    assert now.progress_percent == 75
    batches.script.release.set()
    assert len(await batches.watch(batch.batch_id)) >= 3
    assert (await batches.get(batch.batch_id)).progress_percent == 100


async def test_batches_take_turns(batches: Batches) -> None:
    await batches.send(b"wait1", b"wait2", b"a1", b"a2", b"a3")
    await until(lambda: len(batches.script.order) == 2)
    other = await batches.send(b"b1", b"b2")
    batches.script.release.set()
    await batches.watch(other.batch_id)
    assert batches.script.order.index(b"b1") <= 4
    assert batches.script.order.index(b"b2") <= 6


async def test_tiers_that_are_away_for_a_while_do_no_harm(batches: Batches) -> None:
    batches.script.failures = [
        Unavailable("restarts", retry_after=0.01),
        Overloaded("full", retry_after=0.01),
    ]
    batch = await batches.send(b"one")
    told = await batches.watch(batch.batch_id)
    assert [m.result.response.text for m in told if m.HasField("result")] == ["one"]


async def test_an_upload_that_breaks_off_keeps_what_was_whole(batches: Batches) -> None:
    sent = asyncio.Event()

    async def broken() -> AsyncIterator[pb.BatchRecognizeRequest]:
        for message in messages(pb.BatchStart(batch_id="mine"), [b"one", b"two"]):
            yield message
        sent.set()
        await asyncio.sleep(60)

    call = batches.stub.BatchRecognize(broken())
    task = asyncio.ensure_future(cast(Any, call))
    await sent.wait()
    await until(lambda: batches.script.order == [b"one"])
    call.cancel()
    await asyncio.wait([task])
    await until(lambda: batches.manager.get("mine").uploads == 0)
    now = await batches.get("mine")
    assert now.state == pb.Batch.STATE_OPEN
    assert [item.key for item in now.recordings] == ["one"]
    assert (await batches.send(b"two", batch_id="mine")).state != pb.Batch.STATE_OPEN
    told = await batches.watch("mine")
    assert [m.result.key for m in told if m.HasField("result")] == ["one", "two"]
    assert [m.result.key for m in await batches.watch("mine", skip=1) if m.HasField("result")] == ["two"]


async def test_cancel_stops_what_waits_and_what_runs(batches: Batches) -> None:
    batch = await batches.send(b"one", b"wait1", b"wait2", b"late")
    await until(lambda: len(batches.script.order) == 3)
    answer = await batches.stub.CancelBatch(pb.CancelBatchRequest(batch_id=batch.batch_id))
    assert answer.batch.state == pb.Batch.STATE_CANCELLED
    told = await batches.watch(batch.batch_id)
    assert [m.result.key for m in told if m.HasField("result")] == ["one"]
    assert batches.script.cancelled == 2
    states = [item.state for item in (await batches.get(batch.batch_id)).recordings]
    assert states == [pb.BatchRecordingStatus.STATE_SUCCEEDED] + [pb.BatchRecordingStatus.STATE_CANCELLED] * 3
    assert b"late" not in batches.script.order
    again = await batches.stub.CancelBatch(pb.CancelBatchRequest(batch_id=batch.batch_id))
    assert again.batch.state == pb.Batch.STATE_CANCELLED
    assert [m async for m in _results_after(batches, b"next")] == ["next"]


async def _results_after(batches: Batches, audio: bytes) -> AsyncIterator[str]:
    batch = await batches.send(audio)
    for message in await batches.watch(batch.batch_id):
        if message.HasField("result"):
            yield message.result.key


async def test_delete_gives_every_byte_back(batches: Batches) -> None:
    batch = await batches.send(b"one", b"bad", b"wait1")
    await until(lambda: len(batches.script.order) == 3)
    await batches.stub.DeleteBatch(pb.DeleteBatchRequest(batch_id=batch.batch_id))
    assert batches.manager.space.used == 0
    with pytest.raises(grpc.aio.AioRpcError) as gone:
        await batches.get(batch.batch_id)
    assert gone.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("audio", "batch_id", "code", "text"),
    [
        ([b"one", b"one"], "x", grpc.StatusCode.ALREADY_EXISTS, "'one'"),
        ([b""], "x", grpc.StatusCode.INVALID_ARGUMENT, "recording.key"),
        ([b"big....." * 9 * KIB], "x", grpc.StatusCode.OUT_OF_RANGE, "big"),
        ([b"one"], "a/../b", grpc.StatusCode.INVALID_ARGUMENT, "batch_id"),
        ([b"a", b"b", b"c", b"d"], "x", grpc.StatusCode.OUT_OF_RANGE, "3 recordings"),
    ],
)
async def test_uploads_that_make_no_sense(
    tmp_path: Path, audio: list[bytes], batch_id: str, code: grpc.StatusCode, text: str
) -> None:
    async with serving(tmp_path, BatchLimits(max_recordings=3)) as batches:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await batches.send(*audio, batch_id=batch_id)
        assert refused.value.code() is code
        assert text in str(from_rpc_error(refused.value))


async def test_messages_out_of_place_are_refused(batches: Batches) -> None:
    chunk = pb.BatchRecognizeRequest(chunk=b"x")
    start = pb.BatchRecognizeRequest(start=pb.BatchStart())
    for wrong in ([], [chunk], [start, chunk], [start, start]):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await batches.stub.BatchRecognize(iter(wrong))
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_closed_batch_takes_no_more(batches: Batches) -> None:
    await batches.send(b"one", batch_id="mine")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await batches.send(b"two", batch_id="mine")
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_a_full_spool_slows_uploads_down_while_work_goes_on(tmp_path: Path) -> None:
    async with serving(tmp_path, BatchLimits(spool_bytes=80 * KIB, parallel=1)) as batches:
        first = await batches.send(b"wait1...".ljust(60 * KIB, b"."))
        task = asyncio.create_task(batches.send(b"two.....".ljust(60 * KIB, b".")))
        _, pending = await asyncio.wait([task], timeout=0.3)
        assert pending
        batches.script.release.set()
        second = await task
        await batches.watch(first.batch_id)
        await batches.watch(second.batch_id)
        assert batches.script.order == [b"wait1", b"two"]


async def test_a_spool_that_nothing_empties_refuses(tmp_path: Path) -> None:
    async with serving(tmp_path, BatchLimits(spool_bytes=20 * KIB)) as batches:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await batches.send(b"one.....".ljust(30 * KIB, b"."))
        error = from_rpc_error(refused.value)
        assert isinstance(error, Overloaded)
        assert error.retry_after == 30
        assert batches.manager.space.used == 0


async def test_batches_expire_and_open_ones_are_closed(tmp_path: Path) -> None:
    async with serving(tmp_path, BatchLimits(idle_seconds=0.2, keep_seconds=0.4)) as batches:
        await batches.send(b"one", batch_id="mine", keep_open=True)
        assert (await batches.get("mine")).state == pb.Batch.STATE_OPEN
        await until(lambda: batches.manager.get("mine").is_terminal)
        await until(lambda: batches.manager.space.used == 0)
        with pytest.raises(grpc.aio.AioRpcError):
            await batches.get("mine")


async def test_too_many_batches(tmp_path: Path) -> None:
    async with serving(tmp_path, BatchLimits(max_batches=1)) as batches:
        await batches.send(b"one", batch_id="mine")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await batches.send(b"two")
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_batch_belongs_to_the_name_of_the_key_that_made_it(tmp_path: Path) -> None:
    (mine, one), (renewed, another), (theirs, other) = map(new_key, ("first", "first", "second"))
    file = tmp_path / "keys"
    file.write_text("\n".join((one, another, other)), encoding="utf-8")
    async with (
        serving(tmp_path, BatchLimits(parallel=2), KeyRing(file)) as batches,
        batches.of(mine) as owner,
        batches.of(renewed) as same,
        batches.of(theirs) as stranger,
    ):
        await owner.send(b"one", batch_id="nightly", keep_open=True)
        for call in (
            stranger.get("nightly"),
            stranger.watch("nightly"),
            stranger.stub.GetBatchResult(pb.GetBatchResultRequest(batch_id="nightly", key="one")),
            stranger.stub.CancelBatch(pb.CancelBatchRequest(batch_id="nightly")),
            stranger.stub.DeleteBatch(pb.DeleteBatchRequest(batch_id="nightly")),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call
            assert refused.value.code() is grpc.StatusCode.NOT_FOUND
        # The same id again is another batch, and the end of it is not the end of the first.
        made = await stranger.send(b"two", batch_id="nightly")
        assert [item.key for item in made.recordings] == ["two"]
        told = await stranger.watch("nightly")
        assert [message.result.key for message in told if message.HasField("result")] == ["two"]
        await stranger.stub.DeleteBatch(pb.DeleteBatchRequest(batch_id="nightly"))
        # Another key of the same name goes on where the first one was.
        assert [item.key for item in (await same.get("nightly")).recordings] == ["one"]
        await same.send(b"three", batch_id="nightly")
        told = await owner.watch("nightly")
        results = {message.result.key for message in told if message.HasField("result")}
        assert results == {"one", "three"}
