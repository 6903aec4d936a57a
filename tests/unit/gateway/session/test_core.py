"""The session's state machine step by step: first words, speculation, commands, timers, failures."""

from __future__ import annotations

import random

import numpy as np
import pytest

from gateway.session.config import PartialPolicy, SessionLimits, SessionOptions
from gateway.session.core import SessionCore
from gateway.session.endpoints import Endpoints
from gateway.session.events import (
    CheckpointReached,
    Ended,
    EndReason,
    Failed,
    Final,
    Partial,
    SpeechBegan,
    SpeechEnded,
)
from gateway.session.jobs import Abilities, JobKind
from gateway.vad.fsmn import FrameScores
from tandem.errors import InvalidRequest, Unavailable
from tandem.results import RecognizeOptions
from tests.unit.gateway.session.simulation import (
    FRAME,
    RATE,
    Script,
    World,
    check_promises,
    random_script,
)


def test_the_first_partial_comes_within_a_third_of_a_second_of_speech() -> None:
    world = World().play(Script().pause(1.0).say(10).audio)
    at, first = next(iter(world.events(Partial)))
    assert isinstance(first, Partial)
    assert first.unfixed == "w1"
    assert at - 1.0 <= 0.35
    began = next(event for _, event in world.events(SpeechBegan))
    assert isinstance(began, SpeechBegan)
    assert began.at == pytest.approx(0.8, abs=0.1)


def test_words_begin_speech_before_the_detector_is_sure_of_it() -> None:
    words = Script().pause(1.0).say(10).audio
    # The detector needs 15 frames of speech and 45 ms more, and a client's frame may end just before that.
    for late in range(0, FRAME, 320):
        world = World().play(words[late:])
        began, first = (update.event for _, update in world.said[:2])
        assert isinstance(began, SpeechBegan) and isinstance(first, Partial)
        assert first.start == began.at
        assert world.said[1][0] + late / RATE - 1.0 <= 0.25
        assert world.jobs(JobKind.CTC)[0].urgent


@pytest.mark.parametrize("seed", range(12))
def test_words_that_begin_speech_early_change_no_final(seed: int) -> None:
    rng = random.Random(seed)
    script = random_script(rng)
    # Speech that stumbles as it begins: the detector is sure of it later than words let expect.
    for _ in range(4):
        script.say(1, rng.uniform(0.115, 0.14), rng.uniform(0.01, 0.07)).say(3).pause(2.6)
    plain = World(SessionOptions(partials=PartialPolicy(enabled=False))).play(script.audio).finish()
    shown = World(latency=lambda job: rng.uniform(0.0, 0.15)).play(script.audio).finish()
    check_promises(shown)
    spans = [[(f.segment.text, f.segment.start, f.segment.end) for f in w.finals] for w in (plain, shown)]
    assert [final for final in spans[1] if final[0]] == spans[0]


def test_words_are_taken_back_when_the_detector_hears_no_speech_in_them() -> None:
    noise = Script().pause(1.0).say(1, length=0.13)
    world = World().play(noise.pause(1.0).audio)
    events = [type(update.event) for _, update in world.said]
    assert events == [SpeechBegan, Partial, SpeechEnded, Final]
    assert world.finals[0].segment.text == ""
    assert world.outstanding == {}
    assert world.jobs(JobKind.FINAL) == []
    world.play(Script(words=1).say(5).pause(2.5).audio).finish()
    check_promises(world)
    assert [final.segment.text for final in world.finals] == ["", "w2 w3 w4 w5 w6"]


def test_expected_speech_that_does_not_come_is_told_to_nobody() -> None:
    # Too short for a word.
    world = World().play(Script().pause(1.0).say(1, length=0.1).pause(1.0).audio)
    assert world.said == []
    assert {job.kind for job in world.encoder.jobs} == {JobKind.CTC}
    world.play(Script(words=1).say(5).pause(2.5).audio).finish()
    check_promises(world)
    assert [(final.index, final.segment.text) for final in world.finals] == [(0, "w2 w3 w4 w5 w6")]


def test_speech_that_is_only_expected_when_the_stream_ends_is_told_to_nobody() -> None:
    script = Script().pause(0.5).say(4).pause(2.3).say(1, length=0.14, gap=0.0)
    # The first final is still out when the stream ends; the words of what was expected come before it.
    slow = World(latency=lambda job: 9.0 if job.kind is JobKind.FINAL else 0.5)
    slow.play(script.audio).finish()
    check_promises(slow)
    assert [type(update.event) for _, update in slow.said if not isinstance(update.event, Partial)] == [
        SpeechBegan,
        SpeechEnded,
        Final,
        Ended,
    ]


def test_a_client_that_ends_its_own_turns_gets_none_for_words_that_are_no_speech() -> None:
    world = World(SessionOptions(client_endpoint=True))
    world.play(Script().pause(1.0).say(1, length=0.13).pause(1.0).audio)
    assert world.said == []


def test_confirmed_text_grows_while_speech_goes_on() -> None:
    world = World().play(Script().pause(0.5).say(60).audio)
    fixed = [partial.fixed for partial in world.partials]
    assert fixed[-1].startswith("w1 w2 w3 w4")
    assert len(set(fixed)) >= 8
    later = [job for job in world.jobs(JobKind.PARTIAL) if job.previous_text]
    assert len(world.jobs(JobKind.PARTIAL)) - len(later) == 10, "ten decodes of stage 1, then continuations"


def test_a_pause_starts_the_final_decode_and_the_endpoint_uses_it() -> None:
    world = World().play(Script().pause(0.5).say(10).pause(1.0).audio)
    (speculative,) = world.jobs(JobKind.FINAL)
    assert world.finals == []
    assert world.partials[-1].text == " ".join(f"w{n}" for n in range(1, 11))
    world.play(Script().pause(1.6).audio)
    assert world.jobs(JobKind.FINAL) == [speculative]
    assert [final.segment.text for final in world.finals] == [world.partials[-1].text]


def test_a_speculative_decode_is_thrown_away_when_speech_resumes() -> None:
    script = Script().pause(0.5).say(6).pause(0.6).say(6)
    world = World(latency=lambda job: 5.0 if job.kind is JobKind.FINAL else 0.02).play(script.audio)
    assert [job.kind for job in world.outstanding.values()].count(JobKind.FINAL) == 0
    assert len(world.jobs(JobKind.FINAL)) == 1
    world.play(Script().pause(2.5).audio).finish()
    assert world.text == script.text
    assert len(world.finals) == 1


def test_words_are_timed_only_when_a_pause_is_about_to_end_speech_and_its_text_is_shown_at_once() -> None:
    world = World().play(Script().pause(0.5).say(3).pause(0.6).audio)
    (resumed,) = world.jobs(JobKind.FINAL)
    assert not resumed.words_wanted.is_set()
    assert world.partials[-1].text == "w1 w2 w3"
    world.play(Script(words=3).say(3).pause(1.2).audio)
    ending = world.jobs(JobKind.FINAL)[-1]
    assert not resumed.words_wanted.is_set() and not ending.words_wanted.is_set()
    # Two seconds of silence end it, less what the detector and its window take.
    world.play(Script().pause(0.6).audio)
    assert ending.words_wanted.is_set()
    assert world.finals == []
    world.play(Script().pause(0.5).audio)
    assert world.jobs(JobKind.FINAL) == [resumed, ending]
    assert [final.segment.text for final in world.finals] == [world.partials[-1].text]
    assert len(world.finals[0].segment.words) == 6


def test_a_pause_in_which_the_text_waits_for_its_words_keeps_no_checkpoint_waiting() -> None:
    world = World().play(Script().pause(0.5).say(6).pause(1.0).audio)
    world.core.checkpoint(1)
    world.carry_out()
    assert world.said[-1][1].event == CheckpointReached(1)


def test_finals_displace_partials_and_keep_their_order() -> None:
    script = Script().pause(0.5).say(4).pause(2.5).say(4).pause(2.5).say(4).pause(2.5)
    first = [True]

    def latency(job: object) -> float:
        slow = first[0]
        first[0] = False
        return 9.0 if slow else 0.05

    world = World(latency=latency).play(script.audio).finish()
    check_promises(world)
    assert world.text == script.text


def test_hotwords_and_language_hold_for_what_follows() -> None:
    world = World().play(Script().pause(0.5).say(6).pause(1.0).audio)
    world.core.reconfigure(SessionOptions(RecognizeOptions(language="en", hotwords=("tandem",))))
    world.carry_out()
    world.play(Script().pause(2.0).audio).finish()
    before, after = world.jobs(JobKind.FINAL)
    assert (before.options.language, before.options.hotwords) == (None, ())
    assert (after.options.language, after.options.hotwords) == ("en", ("tandem",))
    assert len(world.finals) == 1


def test_an_utterance_begins_as_long_before_speech_as_asked() -> None:
    script = Script().pause(2.0).say(5).pause(2.5)
    starts = []
    for lead in (0.2, 1.0):
        world = World(SessionOptions(lead=lead)).play(script.audio).finish()
        starts.append(world.finals[0].segment.start)
        assert len(world.jobs(JobKind.FINAL)[0].samples) / 16_000 >= 5 * 0.34 + lead
    assert starts[1] == pytest.approx(starts[0] - 0.8, abs=0.01)


def test_the_margin_says_how_sure_of_speech_the_detector_has_to_be() -> None:
    unsure = FrameScores(np.full(100, 0.1, dtype=np.float32), np.zeros(100, dtype=np.float32))
    for margin, heard in ((None, True), (0.9, False)):
        endpoints = Endpoints(SessionOptions(speech_margin=margin), 60.0)
        assert any(event is not None for event in endpoints.push(unsure)) == heard


def test_finalize_outside_speech_does_nothing_with_endpoints_of_the_server() -> None:
    world = World().play(Script().pause(2.0).audio)
    assert not world.core.finalize()
    assert not World(SessionOptions(client_endpoint=True)).core.finalize()


def test_finalize_ends_speech_at_once() -> None:
    script = Script().pause(0.5).say(5)
    world = World().play(script.audio)
    assert world.core.finalize()
    world.carry_out()
    world.run_until(world.now + 0.1)
    assert world.text == script.text
    assert world.finals[0].segment.end == pytest.approx(len(script.audio) / 16_000)


def test_speech_that_is_ended_at_its_longest_length_asks_for_no_more_than_the_model_takes() -> None:
    longest, block = 5.0, RATE // 100
    for ended in np.arange(4.6, 5.4, 0.01):
        core = SessionCore(SessionOptions(), Abilities(ctc=False, max_segment=longest), lambda: 0.0)
        jobs, known = [], 0
        for heard in range(block, round(ended * RATE), block):
            # The detector hears of a frame when its window and the next one are there.
            frames = max(0, (heard - 400) // block - 1) - known
            known += frames
            none = np.zeros(frames, np.float32)
            core.hear(np.zeros(block, np.int16), FrameScores(none, none))
            jobs += core.take().starts
        core.finalize()
        jobs += core.take().starts
        spans = [(job.end - job.start) / RATE for job in jobs if job.kind is JobKind.FINAL]
        assert spans and max(spans) <= longest


def test_cleared_speech_gets_no_final() -> None:
    world = World(SessionOptions(client_endpoint=True)).play(Script().pause(0.3).say(5).audio)
    world.core.clear()
    world.carry_out()
    assert world.outstanding == {}
    world.play(Script().pause(0.5).audio).finish()
    assert world.text == ""


def test_an_idle_session_ends_and_says_why() -> None:
    world = World(limits=SessionLimits(idle=30)).play(Script().pause(1.0).audio)
    world.now += 29
    assert world.core.tick() is None
    world.now += 2
    assert world.core.tick() is EndReason.IDLE
    world.core.stop(EndReason.IDLE)
    world.carry_out()
    event = world.said[-1][1].event
    assert isinstance(event, Ended)
    assert event.reason is EndReason.IDLE
    assert event.duration == pytest.approx(1.0)


def test_a_session_has_a_longest_duration() -> None:
    world = World(limits=SessionLimits(max_duration=60)).play(Script().pause(61).audio)
    assert world.core.tick() is EndReason.MAX_DURATION


def test_running_speech_ends_when_audio_stops_coming() -> None:
    script = Script().pause(0.5).say(5)
    world = World(limits=SessionLimits(stall=3)).play(script.audio)
    world.run_until(world.now + 4)
    assert world.core.tick() is None
    world.carry_out()
    world.run_until(world.now + 1)
    assert world.text == script.text
    assert [type(update.event) for _, update in world.said].count(SpeechEnded) == 1


def test_a_failed_partial_is_skipped_and_a_failed_final_ends_the_session() -> None:
    world = World()
    world.error = Unavailable("the encoder is gone")
    world.play(Script().pause(0.5).say(12).audio)
    assert world.partials == []
    assert not world.core.ended
    world.play(Script().pause(3).audio)
    assert world.core.ended
    event = world.said[-1][1].event
    assert isinstance(event, Failed)
    assert "gone" in str(event.error)


def test_cursors_never_go_back_and_reach_the_end() -> None:
    script = Script().pause(0.5).say(10).pause(3).say(3).pause(3)
    world = World().play(script.audio).finish()
    received = [update.cursors.received for _, update in world.said]
    finals = [update.cursors.final for _, update in world.said]
    assert received == sorted(received)
    assert finals == sorted(finals)
    assert received[-1] == pytest.approx(len(script.audio) / 16_000)
    assert finals[-1] == world.finals[-1].segment.end


def test_a_checkpoint_is_reached_with_the_text_of_everything_before_it() -> None:
    script = Script().pause(0.5).say(30).pause(3).say(4)
    policy = PartialPolicy(at_checkpoints=True, rollback_chars=4)
    world = World(SessionOptions(partials=policy), latency=lambda job: 0.3)
    for number, first in enumerate(range(0, len(script.audio), 11_520)):
        # As fast as the answers come.
        world.play(script.audio[first : first + 11_520], pace=1e6)
        world.core.checkpoint(number)
        world.carry_out()
        world.run_until(world.now + 1.0)
        last = world.said[-1][1].event
        assert isinstance(last, CheckpointReached)
        assert last.number == number
    assert world.jobs(JobKind.CTC) == []
    assert len(world.jobs(JobKind.PARTIAL)) > 10
    assert any(partial.fixed for partial in world.partials)
    texts = [event.text for event in world.partials if event.index == 0]
    assert len(texts[-1].split()) == 30
    world.finish()
    check_promises(world)
    assert world.text == script.text


def test_checkpoints_that_wait_are_bounded() -> None:
    world = World(latency=lambda job: 100.0).play(Script().say(3).audio)
    with pytest.raises(InvalidRequest, match="waiting"):
        for number in range(100):
            world.core.checkpoint(number)
    assert not any(isinstance(update.event, CheckpointReached) for _, update in world.said)


def test_a_checkpoint_without_partials_waits_for_nothing_but_finals() -> None:
    world = World(SessionOptions(partials=PartialPolicy(enabled=False))).play(Script().say(6).audio)
    world.core.checkpoint(7)
    world.carry_out()
    assert world.said[-1][1].event == CheckpointReached(7)
