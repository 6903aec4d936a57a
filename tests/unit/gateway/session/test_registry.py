"""Sessions of one gateway: admission, resumption, grace, speakers that come late, and two hours of speech."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from gateway.session.config import SessionLimits, SessionOptions
from gateway.session.ears import Apart
from gateway.session.events import Ended, Event, Final, Refined
from gateway.session.registry import RegistryConfig, SessionRegistry
from gateway.session.speakers import SpeakerTracker
from gateway.speakers.types import Turn
from tandem.errors import CapabilityMissing, InvalidRequest, Overloaded
from tandem.results import RecognizeOptions
from tests.unit.gateway.session.instant import Clock, InstantBackend, Voices
from tests.unit.gateway.session.simulation import Script, ScriptEars, seconds


class Duet(Voices):
    """Finds a second speaker after 1.5 s of each sentence, except in the end after `settled` seconds."""

    def __init__(self, settled: float) -> None:
        super().__init__(0.0)
        self._settled = settled

    def assign(self, index: int, start: float, end: float, voice: object) -> Sequence[Turn]:
        super().assign(index, start, end, voice)
        return [Turn(0, start, start + 1.5), Turn(1, start + 1.5, end)]

    async def finish(self) -> Mapping[int, Sequence[Turn]]:
        change = self._settled
        return {
            index: [Turn(0, start, start + change), Turn(1, start + change, end)]
            for index, (start, end) in enumerate(self._finals)
        }


def registry(
    clock: Clock | None = None, *, sessions: int = 2, voices: Voices | None = None
) -> SessionRegistry:
    def tracker(options: SessionOptions) -> SpeakerTracker:
        assert voices is not None
        return voices

    config = RegistryConfig(SessionLimits(grace=10, idle=60), max_sessions=sessions)
    speakers = tracker if voices is not None else None
    return SessionRegistry(InstantBackend(), Apart(ScriptEars), config, speakers, clock or Clock())


async def events(sessions: SessionRegistry, script: Script, options: SessionOptions) -> list[Event]:
    held = sessions.open(options)
    audio = script.audio
    for first in range(0, len(audio), 1600):
        await held.session.hear(audio[first : first + 1600])
        await asyncio.sleep(0)
    held.session.stop()
    return [update.event async for update in held.session.outbox.attach()]


def test_more_sessions_than_allowed_are_refused_with_a_hint() -> None:
    sessions = registry(sessions=2)
    held = [sessions.open(SessionOptions()) for _ in range(2)]
    with pytest.raises(Overloaded) as refused:
        sessions.open(SessionOptions())
    assert refused.value.retry_after
    sessions.close(held[0])
    sessions.open(SessionOptions())


def test_a_session_waits_for_its_client_only_so_long() -> None:
    clock = Clock()
    sessions = registry(clock)
    held = sessions.open(SessionOptions())
    sessions.lost(held, held.clients)
    clock.now = 9
    sessions.tick()
    assert sessions.resume(held.token) is held
    # The first connection's end is noticed only now: the second one keeps the session.
    sessions.lost(held, 1)
    clock.now = 30
    sessions.tick()
    assert sessions.resume(held.token) is held
    sessions.lost(held, held.clients)
    clock.now = 41
    sessions.tick()
    with pytest.raises(InvalidRequest):
        sessions.resume(held.token)


def test_speakers_that_cannot_be_had_are_refused() -> None:
    with pytest.raises(CapabilityMissing):
        registry().open(SessionOptions(RecognizeOptions(speakers=True)))


def test_impossible_endpoints_are_the_clients_mistake() -> None:
    with pytest.raises(InvalidRequest):
        registry().open(SessionOptions(RecognizeOptions(max_segment=0.5)))


async def test_more_hotwords_than_fit_a_prompt_are_refused_and_the_session_goes_on() -> None:
    sessions = registry()
    with pytest.raises(InvalidRequest):
        sessions.open(SessionOptions(RecognizeOptions(hotwords=("w" * 16_385,))))
    session = sessions.open(SessionOptions(RecognizeOptions(hotwords=("a",)))).session
    with pytest.raises(InvalidRequest):
        session.update("en", ("w",) * 2_001)
    assert (session.options.recognize.language, session.options.recognize.hotwords) == (None, ("a",))
    session.update("en", ("w",) * 2_000)
    assert len(session.options.recognize.hotwords) == 2_000


@pytest.mark.parametrize("delay", [0.0, 0.05])
async def test_speakers_come_with_the_final_or_after_it_and_are_settled_at_the_end(delay: float) -> None:
    script = Script().pause(0.3)
    for _ in range(3):
        script.say(4).pause(2.5)
    told = await events(
        registry(voices=Voices(delay)), script, SessionOptions(RecognizeOptions(speakers=True))
    )
    finals = [event for event in told if isinstance(event, Final)]
    last: dict[int, str | None] = {final.index: final.segment.speaker for final in finals}
    if delay:
        assert set(last.values()) == {None}
    else:
        assert list(last.values()) == ["SPK0", "SPK1", "SPK2"]
    texts = {final.index: final.segment.text for final in finals}
    for event in told:
        if isinstance(event, Refined):
            last[event.index] = event.segment.speaker
            assert event.segment.text == texts[event.index]
    assert list(last.values()) == ["SPK0", "SPK1", "SPK0"]
    assert isinstance(told[-1], Ended)


@pytest.mark.parametrize(("settled", "words"), [(1.5, [4, 6]), (2.2, [6, 4]), (0.5, [10])])
async def test_a_sentence_of_two_speakers_is_cut_between_words(settled: float, words: list[int]) -> None:
    options = SessionOptions(RecognizeOptions(speakers=True))
    told = await events(registry(voices=Duet(settled)), Script().pause(0.3).say(10).pause(2.5), options)
    (final,) = [event for event in told if isinstance(event, Final)]
    assert [len(part.words) for part in final.parts] == [4, 6]
    assert [part.speaker for part in final.parts] == ["SPK0", "SPK1"]
    assert " ".join(part.text for part in final.parts) == final.segment.text
    refined = [event for event in told if isinstance(event, Refined)]
    assert len(refined) == (settled != 1.5)
    last: Final | Refined = refined[0] if refined else final
    assert [len(part.words) for part in last.sentences] == words
    assert last.segment.text == final.segment.text


async def test_words_that_were_not_asked_for_do_not_come_with_speakers() -> None:
    options = SessionOptions(RecognizeOptions(speakers=True, word_times=False))
    told = await events(registry(voices=Duet(2.2)), Script().pause(0.3).say(10).pause(2.5), options)
    cut = [event for event in told if isinstance(event, Final | Refined)]
    assert [len(event.parts) for event in cut] == [2, 2]
    assert not any(part.words for event in cut for part in (event.segment, *event.parts))


async def test_two_hours_of_talk_keep_memory_flat() -> None:
    held = registry().open(SessionOptions())
    script = Script().pause(0.5)
    for _ in range(5):
        script.say(20).pause(2.6)
    talk = script.audio
    most = []
    for _ in range(round(7200 * 16_000 / len(talk))):
        for first in range(0, len(talk), seconds(0.5)):
            await held.session.hear(talk[first : first + seconds(0.5)])
            await asyncio.sleep(0)
        held.session.outbox.attach(1e9)
        most.append(held.session.nbytes)
    assert held.session.cursors.received == pytest.approx(7200, abs=60)
    assert max(most[len(most) // 2 :]) <= max(most[: len(most) // 2])
    assert max(most) < 1_000_000


async def test_draining_lets_a_session_say_what_it_has_heard() -> None:
    sessions = registry()
    held = sessions.open(SessionOptions())
    script = Script().pause(0.3).say(5)
    await held.session.hear(script.audio)
    draining = asyncio.create_task(sessions.drain(5))
    told = [update.event async for update in held.session.outbox.attach()]
    sessions.close(held)
    await asyncio.wait_for(draining, 2)
    assert [event.segment.text for event in told if isinstance(event, Final)] == [script.text]
    with pytest.raises(Overloaded):
        sessions.open(SessionOptions())


def test_audio_after_the_end_is_ignored() -> None:
    held = registry().open(SessionOptions())

    async def late() -> None:
        held.session.stop()
        await held.session.hear(np.ones(1600, dtype=np.int16))

    asyncio.run(late())
    assert held.session.cursors.received == 0
