"""Speakers of a live session with real tiers: provisional with the finals, refined by the end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tandem import LiveStream, RecognizeOptions, StreamOptions
from tandem.launcher import Stack
from tandem.live_events import Final, LiveEvent, Refined
from tests.support.live import live_stack, paced, pcm
from tests.support.recordings import speaker_weights


@pytest.fixture(scope="module")
def services() -> Iterator[Stack]:
    speaker_weights()
    with live_stack() as running:
        yield running


async def test_a_live_dialogue_has_two_speakers(services: Stack) -> None:
    options = RecognizeOptions(max_new_tokens=4, speakers=True, fixed_silence=0.5, dynamic_silence=False)
    async with LiveStream(services.address, StreamOptions(options, interim=False)) as live:

        async def read() -> list[LiveEvent]:
            return [event async for event in live]

        reading = asyncio.create_task(read())
        async for frame in paced(pcm("dialogue_2spk.flac")[: 40 * 16000], speed=4):
            await live.send(frame)
        live.end()
        events = await reading
    speakers: dict[int, tuple[float, str | None]] = {}
    for event in events:
        if isinstance(event, Final | Refined):
            speakers[event.index] = (event.segment.start, event.segment.speaker)
    # Who speaks when, by the recording's description.
    told = [speaker for start, speaker in speakers.values() if start < 9 or 17.5 < start < 30 or start > 34]
    answered = [speaker for start, speaker in speakers.values() if 9.5 < start < 17 or 30 < start < 33.2]
    assert set(told) == {"SPK0"} and set(answered) == {"SPK1"}
