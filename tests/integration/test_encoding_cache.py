"""The encoder's cache through the real service: equal answers, one computation, its counters."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from tandem.encoder.v1 import encoder_pb2 as pb
from tandem.encoder.v1 import encoder_pb2_grpc
from tandem.rpc.channels import channel_options
from tests.support.metrics import scrape, value
from tests.support.ports import free_port
from tests.support.services import NANO, encoder

Stub = encoder_pb2_grpc.EncoderServiceStub
OUTCOMES = ("hit", "shared", "miss")
MIB = 2**20


class Service:
    """An encoder process that gives equal requests half a second to meet, with a cache of 1 MiB."""

    def __init__(self, stub: Stub, port: int) -> None:
        self.stub, self._port = stub, port

    def call(self, pcm: bytes) -> Any:
        """The answer's messages as they come; it can be cancelled."""
        audio = pb.AudioConfig(format=pb.SAMPLE_FORMAT_S16LE)
        config = pb.EncodeConfig(audio=audio, ctc=pb.CTC_MODE_COMPACT, encoder_out=True)
        return self.stub.Encode(
            iter([pb.EncodeRequest(config=config), pb.EncodeRequest(audio=pcm)]), timeout=60
        )

    def encode(self, pcm: bytes) -> list[bytes]:
        """The answer without its timing."""
        *answer, timing = self.call(pcm)
        assert timing.HasField("timing")
        return [message.SerializeToString() for message in answer]

    def read(self) -> dict[str, float]:
        samples = scrape(self._port)
        found = {
            outcome: value(samples, "tandem_encoder_cache_requests_total", outcome=outcome)
            for outcome in OUTCOMES
        }
        found["evictions"] = value(samples, "tandem_encoder_cache_evictions_total")
        return found | {"bytes": value(samples, "tandem_encoder_cache_bytes")}

    def counted(self, before: dict[str, float]) -> dict[str, float]:
        """What happened since."""
        return {outcome: number - before[outcome] for outcome, number in self.read().items()}


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    port = free_port()
    flags = ["--embedding-cache-mib", "1", "--max-wait-ms", "500", "--metrics-port", str(port)]
    with (
        encoder(arguments=[*flags, "--speaker-model", "none"]) as target,
        grpc.insecure_channel(target, options=channel_options()) as channel,
    ):
        yield Service(Stub(channel), port)


def speech(shift: int = 0) -> bytes:
    """A recording of 9 s whose first samples differ for each shift."""
    pcm = (NANO / "english_9s.wav").read_bytes()[44:]
    return shift.to_bytes(4, "little") + pcm[4:]


def test_the_same_audio_gets_the_same_bits_without_being_encoded_again(service: Service) -> None:
    before = service.read()
    answers = [service.encode(speech()) for _ in range(3)]
    assert len(answers[0]) >= 4  # header, embeddings, posteriors, states
    assert answers[1] == answers[0] and answers[2] == answers[0]
    counted = service.counted(before)
    assert [counted[outcome] for outcome in OUTCOMES] == [2, 0, 1]


def test_equal_requests_at_a_time_are_computed_once(service: Service) -> None:
    before = service.read()
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(service.encode, [speech(1)] * 6))
    assert all(answer == answers[0] for answer in answers)
    counted = service.counted(before)
    assert counted["miss"] == 1
    assert counted["shared"] >= 1
    assert counted["shared"] + counted["hit"] == 5


def test_a_caller_that_leaves_does_not_take_the_computation_with_it(service: Service) -> None:
    before = service.read()
    leaving = service.call(speech(2))
    deadline = time.monotonic() + 30
    while service.counted(before)["miss"] == 0:
        assert time.monotonic() < deadline
    with ThreadPoolExecutor(1) as pool:
        staying = pool.submit(service.encode, speech(2))
        time.sleep(0.1)  # it waits for the first one's batch
        leaving.cancel()
        answer = staying.result()
    assert answer == service.encode(speech(2))
    assert service.counted(before)["hit"] == 1


def test_memory_stays_within_its_bound(service: Service) -> None:
    before = service.read()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(service.encode, map(speech, range(10, 42))))
    counted = service.counted(before)
    assert counted["evictions"] > 0
    assert 0 < service.read()["bytes"] <= MIB
