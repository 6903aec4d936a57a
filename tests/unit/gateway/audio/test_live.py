"""Live audio comes out of its decoders in bounded pieces, however much a message holds."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import AsyncIterator

import av
import numpy as np
from av.audio.frame import AudioFrame

from gateway.audio.live import OpusDecoder, Pcm, RawDecoder
from gateway.audio.types import RawEncoding

LONG = 600
"""Seconds, of which Opus makes some kilobytes."""


def opus_silence(seconds: int) -> bytes:
    output = io.BytesIO()
    with av.open(output, "w", format="ogg") as container:
        track = container.add_stream("libopus", rate=48_000, options={"frame_duration": "60", "dtx": "1"})
        for _ in range(seconds):
            frame = AudioFrame.from_ndarray(np.zeros((1, 48_000), np.int16), format="s16", layout="mono")
            frame.sample_rate = 48_000
            container.mux(track.encode(frame))
        container.mux(track.encode(None))
    return output.getvalue()


async def everything(pieces: AsyncIterator[Pcm]) -> list[Pcm]:
    return [piece async for piece in pieces]


async def test_hours_in_a_few_bytes_of_opus_are_decoded_as_they_are_taken() -> None:
    data = opus_silence(LONG)
    assert len(data) < 200_000
    decoder = OpusDecoder()
    pieces = [*await everything(decoder.push(data)), *await everything(decoder.finish())]
    assert max(map(len, pieces)) <= 11 * 16_000
    assert abs(sum(map(len, pieces)) - LONG * 16_000) < 1_600


async def test_an_opus_stream_that_is_closed_decodes_no_further() -> None:
    others = set(threading.enumerate())
    decoder = OpusDecoder()
    (thread,) = set(threading.enumerate()) - others
    pieces = decoder.push(opus_silence(LONG))
    await anext(pieces)
    assert thread.is_alive()
    decoder.close()
    await asyncio.to_thread(thread.join, 5)
    assert not thread.is_alive()
    rest = await everything(pieces)
    assert sum(map(len, rest)) <= 11 * 16_000


async def test_raw_samples_of_a_large_message_come_in_pieces_that_join_without_a_seam() -> None:
    samples = np.arange(500_001, dtype=np.int32).astype(np.int16)
    data, decoder = samples.tobytes(), RawDecoder(RawEncoding.S16LE, 16_000)
    messages = data[:333_333], data[333_333:]
    pieces = [piece for message in messages for piece in await everything(decoder.push(message))]
    assert max(map(len, pieces)) <= 64 * 1024
    np.testing.assert_array_equal(np.concatenate(pieces), samples)
