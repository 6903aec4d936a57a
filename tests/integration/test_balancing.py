"""Envoy, one gateway, three encoders, two decoders: replicas come, go and differ, and no request notices.

The tests share one cluster and run in their order: each begins where the one before it has ended. Where the
speed of machines matters they work in rounds (tests/support/rounds.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import threading
import time
import wave
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np
import pytest

from encoder_service.batch_calls import OPEN_SECONDS
from tandem import AsyncClient, RecognizeOptions
from tests.support.cluster import Cluster, Replica, cluster
from tests.support.envoy import envoy
from tests.support.metrics import value
from tests.support.rounds import Rounds, rounds

ROOT = Path(__file__).parents[2]
MEETING = ROOT / "examples" / "meeting.flac"
OPTIONS = RecognizeOptions(vad=False, word_times=False, details=True, max_new_tokens=3)
# One segment at a time, and again when it comes again, so that a replica has one speed.
ALONE = ("--max-batch-items", "1", "--embedding-cache-mib", "0")
ONE_ANSWER = ("--max-num-seqs", "1")
IN_FLIGHT = 16
PIECES = 6
MEASURED = 96
"""Requests while rounds are counted: enough that how they begin and end hardly counts."""


@pytest.fixture(scope="module")
def cut_recording() -> list[bytes]:
    """Wave files of different lengths, 2 to 6 s, cut from the recording."""
    with av.open(str(MEETING)) as container:
        resampler = av.AudioResampler("s16", "mono", 16_000)
        frames = [out for frame in container.decode(audio=0) for out in resampler.resample(frame)]
    samples = np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames])
    pieces = []
    for index in range(PIECES):
        length = round((2.0 + 0.8 * index) * 16_000)
        file = io.BytesIO()
        with wave.open(file, "wb") as writer:
            writer.setnchannels(1)
            writer.setsampwidth(2)
            writer.setframerate(16_000)
            writer.writeframes(samples[index * 48_000 : index * 48_000 + length].tobytes())
        pieces.append(file.getvalue())
    return pieces


@pytest.fixture(scope="module")
def running(derived_files: None) -> Iterator[Cluster]:
    """Two of three encoders at work, each process with one thread of computing.

    Threads that wait for one another use processor time, which is what the rounds go by.
    """
    model, args = ROOT / "models" / "demo", {"encoder_args": ALONE, "decoder_args": ONE_ANSWER}
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OMP_NUM_THREADS", "1")
        with cluster(model, 3, 2, running=2, **args) as started:
            yield started


@pytest.fixture(scope="module")
def front(running: Cluster) -> Iterator[str]:
    """The chart's Envoy before the gateway: what every request of these tests goes through."""
    with envoy(running.address) as started:
        yield started.address


Ids = list[tuple[int, ...]]


async def recognize(address: str, pieces: Sequence[bytes], count: int) -> Ids:
    """Token ids of `count` requests, the pieces in turn. Raises the first error."""
    gate = asyncio.Semaphore(IN_FLIGHT)
    async with AsyncClient(address) as client:

        async def one(index: int) -> tuple[int, ...]:
            async with gate:
                answer = await client.recognize(pieces[index % len(pieces)], OPTIONS, timeout=120)
                return answer.segments[0].token_ids

        return list(await asyncio.gather(*(one(index) for index in range(count))))


@pytest.fixture(scope="module")
def expected(front: str, cut_recording: list[bytes]) -> Ids:
    """What each piece says, from an idle cluster."""
    return asyncio.run(recognize(front, cut_recording, PIECES))


@contextlib.contextmanager
def in_rounds(
    running: Cluster, machines: Sequence[Replica], slow: Sequence[Replica] = ()
) -> Iterator[Rounds]:
    """These replicas make equal progress, but for slow ones; all others are as fast as need be."""
    speeds = {replica.pid: 0.2 if replica in slow else 1.0 for replica in machines}
    everything = [running.gateway, *running.encoders, *running.decoders]
    others = [replica.pid for replica in everything if replica.is_alive and replica.pid not in speeds]
    with rounds(speeds, others) as passed:
        yield passed


def check(got: Ids, expected: Ids) -> None:
    assert got == [expected[index % PIECES] for index in range(len(got))]


def shares(after: list[float], before: list[float]) -> list[float]:
    gained = [new - old for new, old in zip(after, before, strict=True)]
    return [part / sum(gained) for part in gained]


def test_both_encoders_and_both_decoders_work(
    running: Cluster, front: str, cut_recording: list[bytes], expected: Ids
) -> None:
    time.sleep(OPEN_SECONDS)  # calls that an encoder opened when it knew one decoder only
    before = running.sent()
    check(asyncio.run(recognize(front, cut_recording, 48)), expected)
    first, second, absent = shares(running.sent(), before)
    assert absent == 0
    assert min(first, second) > 0.3
    for decoder in running.decoders:
        assert value(decoder.scrape(), "tandem_requests_total", method="GenerateAtOnce", code="OK") >= 15


def test_a_slow_encoder_gets_less(
    running: Cluster, front: str, cut_recording: list[bytes], expected: Ids
) -> None:
    before = running.sent()
    machines = running.encoders[:2]
    with in_rounds(running, machines, slow=machines[:1]):
        check(asyncio.run(recognize(front, cut_recording, 48)), expected)
    slow, fast, _ = shares(running.sent(), before)
    assert slow < 0.6 * fast


def test_an_encoder_that_comes_takes_its_share_and_more_is_done(
    running: Cluster, front: str, cut_recording: list[bytes], expected: Ids
) -> None:
    with in_rounds(running, running.encoders[:2]) as of_two:
        check(asyncio.run(recognize(front, cut_recording, MEASURED)), expected)
    running.start(running.encoders[2])
    running.wait_known(running.encoders[2], up=True)
    before = running.sent()
    with in_rounds(running, running.encoders) as of_three:
        check(asyncio.run(recognize(front, cut_recording, MEASURED)), expected)
    assert min(shares(running.sent(), before)) > 0.15
    assert of_two.count > 1.2 * of_three.count


def test_an_encoder_that_dies_loses_nothing(
    running: Cluster, front: str, cut_recording: list[bytes], expected: Ids
) -> None:
    victim = running.encoders[1]
    killer = threading.Timer(1.0, victim.kill)
    with in_rounds(running, running.encoders):
        killer.start()
        check(asyncio.run(recognize(front, cut_recording, 60)), expected)
    killer.join()
    running.wait_known(victim, up=False)
    failed = value(running.gateway.scrape(), "tandem_gateway_encoder_failovers_total", address=victim.address)
    assert failed > 0


def test_an_encoder_that_returns_is_used_again(
    running: Cluster, front: str, cut_recording: list[bytes], expected: Ids
) -> None:
    running.start(running.encoders[1])
    running.wait_known(running.encoders[1], up=True)
    before = running.sent()
    check(asyncio.run(recognize(front, cut_recording, 48)), expected)
    assert min(shares(running.sent(), before)) > 0.1


def test_a_decoder_that_dies_loses_nothing_and_less_is_done(
    running: Cluster, front: str, cut_recording: list[bytes], expected: Ids
) -> None:
    with in_rounds(running, running.decoders) as of_two:
        check(asyncio.run(recognize(front, cut_recording, MEASURED)), expected)
    killer = threading.Timer(0.5, running.decoders[0].kill)
    killer.start()
    check(asyncio.run(recognize(front, cut_recording, 60)), expected)
    killer.join()
    with in_rounds(running, running.decoders[1:]) as of_one:
        check(asyncio.run(recognize(front, cut_recording, MEASURED)), expected)
    assert of_one.count > 1.3 * of_two.count
