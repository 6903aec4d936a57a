"""What a live client sends again is, to the byte, what the server does not have."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from tandem.asr.v1 import asr_pb2 as pb
from tandem.rpc.durations import duration, seconds
from tandem.streaming_log import SentLog

RATE = 16_000


def audio(data: bytes) -> pb.StreamingRecognizeRequest:
    return pb.StreamingRecognizeRequest(audio=data)


def silence(length: float) -> pb.StreamingRecognizeRequest:
    return pb.StreamingRecognizeRequest(silence=duration(length))


def noise(size: int) -> bytes:
    return np.random.default_rng(5).integers(0, 256, size, dtype=np.uint8).tobytes()


async def sent_from(log: SentLog, position: float) -> list[pb.StreamingRecognizeRequest]:
    """What a new call brings to a server that has `position` seconds."""
    log.received(position)
    log.end()
    return [message async for message in log.from_position(position)]


@pytest.mark.parametrize("chunk", [1, 333, 1001, 70_001])
@pytest.mark.parametrize("samples", [0, 1, 500, 501, 4600])
async def test_odd_chunks_go_on_at_the_sample_that_is_missing(chunk: int, samples: int) -> None:
    data, log = noise(80_000), SentLog(2 * RATE)
    for first in range(0, len(data), chunk):
        log.add(audio(data[first : first + chunk]))
    sent = await sent_from(log, seconds(duration(samples / RATE)))
    assert b"".join(message.audio for message in sent) == data[2 * samples :]


@pytest.mark.parametrize("samples", [0, 500, 500 + RATE, 501 + RATE, 900 + RATE])
async def test_a_sample_with_silence_inside_it_is_kept_whole(samples: int) -> None:
    """The server takes its second half for the time that it is heard."""
    data, log = noise(2002), SentLog(2 * RATE)
    for message in (audio(data[:1001]), silence(1.0), audio(data[1001:])):
        log.add(message)
    sent = await sent_from(log, seconds(duration(samples / RATE)))
    heard = samples if samples <= 500 else samples - RATE
    assert b"".join(message.audio for message in sent) == data[2 * heard :]


@pytest.mark.parametrize("samples", [100, 101, 799])
async def test_a_sample_of_one_byte_is_not_taken_for_half_of_one(samples: int) -> None:
    data, log = noise(1600), SentLog(8000, width=1)
    for first in range(0, len(data), 333):
        log.add(audio(data[first : first + 333]))
    sent = await sent_from(log, seconds(duration(samples / 8000)))
    assert b"".join(message.audio for message in sent) == data[samples:]


async def test_bytes_that_say_nothing_about_time_are_passed_on_as_they_are() -> None:
    log = SentLog(0)
    for part in (b"abc", b"d", b"efghi"):
        log.add(audio(part))
    assert [message.audio for message in await sent_from(log, 0.0)] == [b"abc", b"d", b"efghi"]


async def test_positions_of_silence_are_the_servers() -> None:
    log, server = SentLog(2 * RATE), 0
    for _ in range(3000):
        message = silence(1 / 30)
        log.add(message)
        server += round(seconds(message.silence) * RATE)
    word = noise(3200)
    log.add(audio(word))
    sent = await sent_from(log, seconds(duration(server / RATE)))
    assert b"".join(message.audio for message in sent) == word
    assert sum(round(seconds(message.silence) * RATE) for message in sent) == 0


async def test_nobody_waits_for_room_in_a_session_that_is_over() -> None:
    log = SentLog(2 * RATE)
    log.add(audio(bytes(61 * 2 * RATE)))
    waiting = asyncio.create_task(log.room())
    await asyncio.sleep(0.01)
    assert not waiting.done()
    log.abandon()
    await asyncio.wait_for(waiting, 1)
    log.add(audio(bytes(2 * RATE)))
    assert await sent_from(log, 0.0) == []


async def test_who_sends_on_without_a_wait_leaves_others_their_turn() -> None:
    log = SentLog(2 * RATE)
    log.abandon()

    async def send_on() -> None:
        while True:
            await log.room()

    sending = asyncio.create_task(send_on())
    await asyncio.sleep(0.01)
    sending.cancel()
    await asyncio.wait([sending], timeout=1)
    assert sending.cancelled()
