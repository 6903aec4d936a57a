"""Speakers of a live session with real tiers: with the finals, within sentences, refined at the end."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tandem import LiveStream, RecognizeOptions, StreamOptions, stream
from tandem.launcher import Stack
from tandem.live_events import Final, LiveEvent, Refined
from tandem.live_inputs import recording_pcm
from tests.support.http import HttpStack
from tests.support.live import paced, pcm

ROOT = Path(__file__).parents[2]
MEETING = ROOT / "examples" / "meeting.flac"


@pytest.fixture
def services(demo_services: HttpStack) -> Stack:
    return demo_services.stack


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


def test_a_sentence_of_several_speakers_is_cut_where_they_change(services: Stack) -> None:
    """In the meeting people answer within half a second, so that pauses alone do not part them."""
    audio = recording_pcm(MEETING.read_bytes(), "meeting").tobytes()
    options = StreamOptions(RecognizeOptions(speakers=True), interim=False)
    last: dict[int, Final | Refined] = {}
    for event in stream([audio], services.address, options):
        if isinstance(event, Final | Refined):
            last[event.index] = event
    assert any(event.parts for event in last.values())
    for event in last.values():
        text = "".join(part.text for part in event.sentences)
        assert text.replace(" ", "") == event.segment.text.replace(" ", "")
        assert all(part.speaker for part in event.sentences)
    turns = json.loads(MEETING.with_suffix(".json").read_text(encoding="utf-8"))["turns"]
    names = {"SPK0": turns[0]["speaker"], "SPK1": turns[1]["speaker"]}
    right = total = 0.0
    for part in (part for event in last.values() for part in event.sentences):
        for turn in turns:
            shared = max(0.0, min(part.end, turn["end"]) - max(part.start, turn["start"]))
            total += shared
            right += shared * (names.get(part.speaker or "") == turn["speaker"])
    assert right >= 0.95 * total > 20
