"""Sessions whose audio is scored together hear what they would hear alone, in order and soon."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from gateway.session.ears import LiveVad, VadEars
from gateway.session.hearing import TICK, Hearing
from gateway.session.ring import Pcm
from gateway.vad.fsmn import FrameScores, FsmnVad
from tests.support.live import pcm
from tests.support.recordings import vad_weights

SPEECH = pcm("english_9s.wav")
SESSIONS = 12


class CountedVad(LiveVad):
    """Notes how many streams each step has."""

    def __init__(self, model: FsmnVad) -> None:
        super().__init__(model)
        self.steps: list[int] = []

    def push(self, heard: Sequence[tuple[VadEars, Pcm]]) -> list[FrameScores]:
        self.steps.append(len(heard))
        return super().push(heard)


@pytest.fixture(scope="module")
def model() -> FsmnVad:
    return FsmnVad(vad_weights())


@dataclass(slots=True)
class Session:
    """What one session has been told; `deaf` ones cannot bear to hear it."""

    deaf: bool = False
    blocks: list[Pcm] = field(default_factory=list)
    silence: list[np.ndarray[tuple[int], np.dtype[np.float32]]] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)

    def heard(self, block: Pcm, scores: FrameScores) -> None:
        if self.deaf:
            raise RuntimeError("a session's own mistake")
        self.blocks.append(block)
        self.silence.append(scores.silence)


async def test_sessions_that_are_due_together_advance_together_and_hear_what_they_would_alone(
    model: FsmnVad,
) -> None:
    vad = CountedVad(model)
    hearing, sessions = Hearing(vad), [Session() for _ in range(SESSIONS)]
    inlets = [hearing.inlet(session.heard, session.failures.append) for session in sessions]
    # Another place of the speech, and another frame size, for each.
    audio = [np.roll(SPEECH, 9_000 * number)[:32_000] for number in range(SESSIONS)]
    frames = [320 * (1 + number % 5) for number in range(SESSIONS)]
    for first in range(0, 32_000, 1_600):
        for inlet, samples, frame in zip(inlets, audio, frames, strict=True):
            for at in range(first, first + 1_600, frame):
                inlet.add(samples[at : min(at + frame, first + 1_600)])
        await asyncio.sleep(1.5 * TICK)
    # What is less than a step has been heard too.
    for inlet in inlets:
        inlet.close()
    assert max(vad.steps) == SESSIONS
    for session, samples in zip(sessions, audio, strict=True):
        assert np.array_equal(np.concatenate(session.blocks), samples)
        alone = VadEars(model).push(samples).silence
        assert np.concatenate(session.silence) == pytest.approx(
            alone[: sum(map(len, session.silence))], abs=1e-4
        )
        assert not session.failures


async def test_clients_faster_than_speech_are_not_held_up_and_still_go_together(model: FsmnVad) -> None:
    vad = CountedVad(model)
    hearing, sessions = Hearing(vad), [Session() for _ in range(SESSIONS)]
    inlets = [hearing.inlet(session.heard, session.failures.append) for session in sessions]
    started = asyncio.get_running_loop().time()
    for first in range(0, 64_000, 1_600):
        for fast in inlets[:2]:
            fast.add(SPEECH[first : first + 1_600])
        await asyncio.sleep(0)
    heard = [sum(map(len, session.blocks)) for session in sessions[:2]]
    assert min(heard) >= 60_000
    assert len(vad.steps) < 20 and set(vad.steps) == {2}
    assert asyncio.get_running_loop().time() - started < 4.0, "faster than speech"


async def test_audio_that_the_detector_cannot_hear_fails_its_own_session_alone(model: FsmnVad) -> None:
    hearing, sessions = Hearing(LiveVad(model)), [Session() for _ in range(SESSIONS)]
    inlets = [hearing.inlet(session.heard, session.failures.append) for session in sessions]
    # Of every frame some samples wait for the next step.
    for first in range(0, 34_000, 1_700):
        for number, inlet in enumerate(inlets):
            block = SPEECH[first : first + 1_700]
            # A column of samples is no audio; sessions before and after this one are in the same step.
            inlet.add(block[:, None] if number == 3 and first == 17_000 else block)
        await asyncio.sleep(1.5 * TICK)
        if sessions[3].failures:
            inlets[3].close()
    assert [len(session.failures) for session in sessions] == [int(number == 3) for number in range(SESSIONS)]
    alone = VadEars(model).push(SPEECH[:34_000]).silence
    for session in (*sessions[:3], *sessions[4:]):
        assert np.array_equal(np.concatenate(session.blocks), SPEECH[:34_000])
        assert np.concatenate(session.silence) == pytest.approx(alone, abs=1e-4)


async def test_what_fails_in_one_session_is_heard_by_the_others(model: FsmnVad) -> None:
    hearing, sessions = Hearing(LiveVad(model)), [Session(deaf=number == 3) for number in range(SESSIONS)]
    inlets = [hearing.inlet(session.heard, session.failures.append) for session in sessions]
    for inlet in inlets:
        inlet.add(SPEECH[:1_600])
    await asyncio.sleep(2 * TICK)
    assert [len(session.blocks) for session in sessions] == [int(not session.deaf) for session in sessions]
    assert [len(session.failures) for session in sessions] == [int(session.deaf) for session in sessions]
