"""Live recognition with the demo model: the words of a meeting, spoken at once and at the pace of speech."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tandem import Client, LiveStream, RecognizeOptions, stream
from tandem.launcher import Stack
from tandem.live_events import Final, LiveEvent, Partial
from tests.support.http import HttpStack
from tests.support.live import paced

ROOT = Path(__file__).parents[2]
MEETING = ROOT / "examples" / "meeting.flac"
Pcm = np.ndarray[tuple[int], np.dtype[np.int16]]


@pytest.fixture
def services(demo_services: HttpStack) -> Stack:
    return demo_services.stack


def meeting() -> tuple[Pcm, list[str]]:
    samples, rate = soundfile.read(MEETING, dtype="int16")
    assert rate == 16_000
    text = json.loads(MEETING.with_suffix(".json").read_text(encoding="utf-8"))["text"]
    return np.concatenate([samples, np.zeros(40_000, dtype=np.int16)]), words(text)


def words(text: str) -> list[str]:
    return re.findall(r"[\w']+", text.lower())


def errors(wanted: Sequence[str], heard: Sequence[str]) -> int:
    row = list(range(len(heard) + 1))
    for i, word in enumerate(wanted, 1):
        previous, row[0] = row[0], i
        for j, got in enumerate(heard, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (word != got))
    return row[-1]


def heard(events: Sequence[LiveEvent]) -> list[str]:
    return words(" ".join(event.segment.text for event in events if isinstance(event, Final)))


def test_a_meeting_sent_at_once_comes_out_in_its_words(services: Stack) -> None:
    audio, wanted = meeting()
    events = list(stream([audio.tobytes()], services.address))
    assert errors(wanted, heard(events)) <= len(wanted) * 0.2


async def captions(address: str, audio: Pcm) -> list[LiveEvent]:
    """What a caller is told who speaks in real time."""
    events: list[LiveEvent] = []
    async with LiveStream(address) as live:

        async def speak() -> None:
            async for frame in paced(audio):
                await live.send(frame)
            live.end()

        speaking = asyncio.create_task(speak())
        async for event in live:
            events.append(event)
        await speaking
    return events


async def test_captions_follow_the_speaker_and_are_never_taken_back(services: Stack) -> None:
    audio, wanted = meeting()
    # A machine that is busy with other things may decode too rarely for two decodes to agree: not every time.
    for _ in range(3):
        events = await captions(services.address, audio[: 14 * 16_000])
        partials = check_captions(events, wanted)
        if any(partial.fixed for partial in partials):
            break
    assert any(partial.fixed for partial in partials)


def check_captions(events: Sequence[LiveEvent], wanted: Sequence[str]) -> list[Partial]:
    """What is true of them however quick the machine is; returns the partials."""
    partials = [event for event in events if isinstance(event, Partial)]
    assert len(partials) >= 8
    for final in (event for event in events if isinstance(event, Final)):
        fixed = [partial.fixed for partial in partials if partial.index == final.index]
        assert all(later.startswith(sooner) for sooner, later in pairwise(fixed))
        assert all(final.segment.text.startswith(text) for text in fixed)
    # What was said in these seconds is the beginning of the whole.
    got = heard(events)
    assert min(errors(wanted[:count], got) for count in range(20, 45)) <= 0.25 * len(got)
    return partials


def test_live_words_have_the_times_of_the_same_audio_as_a_recording(services: Stack) -> None:
    audio, _ = meeting()
    events = list(stream([audio.tobytes()], services.address))
    finals = [event.segment for event in events if isinstance(event, Final) and event.segment.words]
    assert len(finals) >= 2
    with Client(services.address) as client:
        for segment in finals:
            first, last = round(segment.start * 16_000), round(segment.end * 16_000)
            (alone,) = client.recognize(audio[first:last], RecognizeOptions(vad=False)).segments
            assert segment.text == alone.text
            assert [word.text for word in segment.words] == [word.text for word in alone.words]
            times = [word.start + segment.start for word in alone.words]
            assert [word.start for word in segment.words] == pytest.approx(times, abs=0.011)
