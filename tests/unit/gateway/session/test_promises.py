"""What holds in every live session: no word lost or doubled, load costs only partials."""

from __future__ import annotations

import random

import pytest

from gateway.session.config import PartialPolicy, SessionOptions
from gateway.session.events import Ended, SpeechEnded
from gateway.session.jobs import Abilities, DecodeJob, JobKind
from tests.unit.gateway.session.simulation import Script, World, check_promises, random_script


@pytest.mark.parametrize("seed", range(40))
def test_random_speech_loses_and_doubles_no_word(seed: int) -> None:
    rng = random.Random(seed)
    script = random_script(rng)
    slowest = rng.choice([0.02, 0.2, 1.0, 3.0])
    world = World(latency=lambda job: rng.uniform(0.005, slowest))
    world.play(
        script.audio, pace=rng.choice([1.0, 2.0]), frame=rng.choice([320, 1600, 4096, 48_000])
    ).finish()
    check_promises(world)
    assert world.text == script.text
    assert isinstance(world.said[-1][1].event, Ended)


@pytest.mark.parametrize("seed", range(12))
def test_the_client_may_end_utterances_anywhere_between_words(seed: int) -> None:
    rng = random.Random(seed)
    world = World(SessionOptions(client_endpoint=True), latency=lambda job: rng.uniform(0.01, 0.6))
    said = 0
    script = Script()
    for _ in range(rng.randint(2, 8)):
        before = len(script.parts)
        script.pause(rng.uniform(0.0, 2.0)).say(rng.randint(1, 12)).pause(rng.uniform(0.2, 3.0))
        for part in script.parts[before:]:
            world.play(part)
        assert world.core.finalize()
        world.carry_out()
        said += 1
    world.finish()
    check_promises(world)
    assert world.text == script.text
    assert len(world.finals) == said


def test_a_slow_encoder_makes_partials_rarer_and_finals_no_later_than_one_decode() -> None:
    script = Script().pause(0.5)
    for _ in range(6):
        script.say(12).pause(2.6)
    counts = []
    for slow in (0.02, 1.0):
        world = World(latency=lambda job, slow=slow: slow).play(script.audio).finish()  # type: ignore[misc]
        check_promises(world)
        assert world.text == script.text
        counts.append(len(world.jobs(JobKind.CTC)) + len(world.jobs(JobKind.PARTIAL)))
        ends = [at for at, _ in world.events(SpeechEnded)]
        waits = [at - end for (at, _), end in zip(world.events(type(world.finals[0])), ends, strict=True)]
        # The speculative decode has had the whole pause: the final is there at the endpoint.
        assert max(waits) <= 0.1
    assert counts[1] < counts[0] / 3


@pytest.mark.parametrize("slow", [0.02, 0.8])
def test_a_long_sentence_is_encoded_a_few_times_over_and_shown_in_all_its_words(slow: float) -> None:
    script = Script().pause(0.5).say(120)
    world = World(latency=lambda job: slow).play(script.audio)
    encoded = sum(job.end - job.start for job in world.encoder.jobs)
    assert encoded <= 8 * len(script.audio)
    # Words that end while the language model listens are misheard; none is missing, none is there twice.
    shown = [word.rstrip("x") for word in world.partials[-1].text.split()]
    assert shown == script.text.split()[: len(shown)]
    assert len(shown) >= 110


def test_silence_costs_no_decode_and_no_memory() -> None:
    world = World().play(Script().pause(1800).audio, pace=1000, frame=16_000)
    assert world.encoder.jobs == []
    assert world.said == []
    assert world.most_bytes < 200_000


def test_endless_speech_is_cut_between_words_and_memory_stays_flat() -> None:
    script = Script().say(900, length=0.36, gap=0.04)
    world = World().play(script.audio, pace=100, frame=16_000).finish()
    check_promises(world)
    assert world.text == script.text
    assert all(final.segment.end - final.segment.start <= 60 for final in world.finals)
    # One longest segment running and one waiting for its final, int16 and float32.
    assert world.most_bytes < 61 * 16_000 * (2 + 4)


def test_without_ctc_partials_come_from_the_language_model_alone() -> None:
    script = Script().pause(0.3).say(20).pause(3)
    world = World(abilities=Abilities(ctc=False, max_segment=60)).play(script.audio).finish()
    check_promises(world)
    assert world.jobs(JobKind.CTC) == []
    assert len(world.partials) >= 6
    assert world.text == script.text


def test_partials_can_be_turned_off_and_finals_stay_the_same() -> None:
    script = Script().pause(0.3).say(9).pause(3).say(4).pause(3)
    world = World(SessionOptions(partials=PartialPolicy(enabled=False))).play(script.audio).finish()
    assert world.partials == []
    assert {job.kind for job in world.encoder.jobs} == {JobKind.FINAL}
    assert world.text == script.text


def test_a_model_with_short_segments_never_gets_a_longer_one() -> None:
    script = Script().say(200, length=0.3, gap=0.05)
    world = World(abilities=Abilities(ctc=True, max_segment=20)).play(script.audio).finish()

    def length(job: DecodeJob) -> float:
        return (job.end - job.start) / 16_000

    assert max(map(length, world.encoder.jobs)) <= 20
    assert world.text == script.text
