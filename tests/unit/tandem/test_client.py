"""The typed clients against a server that refuses: they ask again as it advises, and give up in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest
from grpc_status import rpc_status

from tandem import AsyncClient, Client, stream
from tandem.asr.v1 import asr_pb2 as pb
from tandem.asr.v1 import asr_pb2_grpc
from tandem.errors import Cancelled, DeadlineExceeded, InvalidAudio, Overloaded, TandemError, Unavailable
from tandem.inputs import Recording
from tandem.many import ManyOptions, transcribe_many
from tandem.patience import Patience, recommended_timeout
from tandem.rpc.status import to_status


class Server(asr_pb2_grpc.AsrServiceServicer):
    """Fails with each of `failures` once, then echoes the audio as text; b"slow..." hangs until released."""

    def __init__(self) -> None:
        self.failures: list[TandemError] = []
        self.times: list[float] = []
        self.running = self.most = 0
        self.released = threading.Event()
        self._lock = threading.Lock()

    def Recognize(self, request: pb.RecognizeRequest, context: grpc.ServicerContext) -> pb.RecognizeResponse:
        with self._lock:
            self.times.append(time.monotonic())
            self.running += 1
            self.most = max(self.most, self.running)
        try:
            if self.failures:
                self._abort(self.failures.pop(0), context)
            if request.audio.startswith(b"bad"):
                self._abort(InvalidAudio("no audio"), context)
            if request.audio.startswith(b"slow"):
                self.released.wait(10)
            time.sleep(0.01)
        finally:
            with self._lock:
                self.running -= 1
        return pb.RecognizeResponse(text=request.audio.decode())

    def StreamingRecognize(
        self, request_iterator: object, context: grpc.ServicerContext
    ) -> Iterator[pb.StreamingRecognizeResponse]:
        yield pb.StreamingRecognizeResponse(started=pb.SessionStarted(resume_token="t"))
        self.released.wait(60)

    def GetCapabilities(
        self, request: pb.GetCapabilitiesRequest, context: grpc.ServicerContext
    ) -> pb.GetCapabilitiesResponse:
        raise NotImplementedError

    def _abort(self, error: TandemError, context: grpc.ServicerContext) -> None:
        context.abort_with_status(rpc_status.to_status(to_status(error)))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Server, str]]:
    servicer, address = Server(), f"unix:{tmp_path}/s.sock"
    running = grpc.server(futures.ThreadPoolExecutor(16))
    asr_pb2_grpc.add_AsrServiceServicer_to_server(servicer, running)
    running.add_insecure_port(address)
    running.start()
    yield servicer, address
    servicer.released.set()
    running.stop(1).wait()


def test_the_servers_advice_decides_when_to_ask_again(server: tuple[Server, str]) -> None:
    servicer, address = server
    servicer.failures = [Overloaded("full", retry_after=0.4), Overloaded("full", retry_after=0.1)]
    with Client(address) as client:
        assert client.recognize(b"hello").text == "hello"
    first, second = (b - a for a, b in zip(servicer.times, servicer.times[1:], strict=False))
    assert 0.4 <= first < 0.7
    assert 0.1 <= second < 0.35


def test_closing_ends_a_call_that_waits_to_ask_again(server: tuple[Server, str]) -> None:
    servicer, address = server
    servicer.failures = [Overloaded("full", retry_after=30)]
    client = Client(address)
    with futures.ThreadPoolExecutor(1) as threads:
        call = threads.submit(client.recognize, b"hello")
        while servicer.failures:
            time.sleep(0.01)
        time.sleep(0.1)
        client.close()
        with pytest.raises(Cancelled, match="closed"):
            call.result(5)
    with pytest.raises(Cancelled, match="closed"):
        client.capabilities()


async def test_the_async_client_does_the_same(server: tuple[Server, str]) -> None:
    servicer, address = server
    servicer.failures = [Overloaded("full", retry_after=0.3)]
    async with AsyncClient(address) as client:
        assert (await client.recognize(b"hello")).text == "hello"
    assert servicer.times[1] - servicer.times[0] >= 0.3


def test_errors_of_the_request_are_not_asked_again(server: tuple[Server, str]) -> None:
    servicer, address = server
    with Client(address) as client, pytest.raises(InvalidAudio):
        client.recognize(b"bad")
    assert len(servicer.times) == 1


def test_patience_ends_with_the_attempts_and_with_the_timeout(server: tuple[Server, str]) -> None:
    servicer, address = server
    servicer.failures = [Overloaded("full") for _ in range(9)]
    with Client(address, patience=Patience(attempts=3, first_delay=0.01)) as client:
        with pytest.raises(Overloaded):
            client.recognize(b"hello")
        assert len(servicer.times) == 3
        servicer.failures = [Overloaded("full", retry_after=30)]
        started = time.monotonic()
        with pytest.raises(Overloaded):
            client.recognize(b"hello", timeout=1)
        with pytest.raises(DeadlineExceeded):
            client.recognize(b"slow", timeout=0.3)
    assert time.monotonic() - started < 2


def test_a_server_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with (
        Client(f"unix:{tmp_path}/none.sock", patience=Patience(2, 0.01)) as client,
        pytest.raises(Unavailable),
    ):
        client.recognize(b"hello")


def test_timeouts_follow_the_duration() -> None:
    header = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x80\x3e\0\0\x00\x7d\0\0\x02\0\x10\0data\0\0\0\0"
    assert recommended_timeout(header + bytes(320_000 - len(header))) == 60 + 2 * 10
    assert recommended_timeout(b"OggS" + bytes(199_996)) == 60 + 2 * 100


def items(*texts: str) -> Iterator[Recording]:
    for text in texts:
        yield Recording(text, text, text.encode)


def test_many_keep_their_order_and_bound(server: tuple[Server, str]) -> None:
    servicer, address = server
    texts = [f"text {number}" for number in range(40)]
    outcomes = transcribe_many(address, items(*texts), ManyOptions(in_flight=5))
    assert [outcome.result().text for outcome in outcomes] == texts
    assert 2 <= servicer.most <= 5


def test_a_bad_recording_is_named_and_the_others_go_on(server: tuple[Server, str]) -> None:
    outcomes = list(transcribe_many(server[1], items("a", "bad.wav", "c"), ManyOptions(in_flight=2)))
    assert [outcome.error is None for outcome in outcomes] == [True, False, True]
    with pytest.raises(InvalidAudio, match=r"^bad\.wav: no audio"):
        outcomes[1].result()


def test_giving_up_in_the_middle_does_not_wait_for_the_rest(server: tuple[Server, str]) -> None:
    outcomes = transcribe_many(
        server[1], items("a", *(f"slow {n}" for n in range(5))), ManyOptions(in_flight=3)
    )
    assert next(outcomes).result().text == "a"
    started = time.monotonic()
    outcomes.close()
    assert time.monotonic() - started < 2


def test_a_microphone_that_breaks_is_an_error_though_the_server_says_nothing(
    server: tuple[Server, str],
) -> None:
    def microphone() -> Iterator[bytes]:
        yield bytes(3200)
        raise OSError("unplugged")

    with pytest.raises(OSError, match="unplugged"):
        list(stream(microphone(), server[1]))
    assert not server[0].released.is_set()
