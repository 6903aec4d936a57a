"""Parts of the live engine by themselves: ring, rollback, CTC time line, outbox, load."""

from __future__ import annotations

import asyncio
import contextlib
import itertools

import numpy as np
import pytest

from gateway.session.events import (
    CheckpointReached,
    Cursors,
    Ended,
    EndReason,
    Event,
    Final,
    Partial,
    Refined,
    Update,
)
from gateway.session.jobs import JobKind
from gateway.session.load import Load
from gateway.session.outbox import Outbox
from gateway.session.ring import AudioRing
from gateway.session.rollback import Rollback, confirmed_prefix
from gateway.session.timeline import CtcPiece, CtcTimeline
from tandem.results import Segment


def test_the_ring_reads_across_blocks_and_refuses_what_is_gone() -> None:
    ring = AudioRing()
    for first in (0, 100, 200):
        ring.append(np.arange(first, first + 100, dtype=np.int16))
    ring.drop_before(150)
    clip = ring.clip(150, 260)
    assert ring.nbytes == 400
    ring.drop_before(300)
    assert clip.read(150, 260).tolist() == list(range(150, 260))
    assert clip.read(199, 201).tolist() == [199, 200]
    assert clip.read(170, 170).tolist() == []
    assert clip.nbytes == 220
    with pytest.raises(IndexError):
        clip.read(140, 200)
    for start, end in ((299, 300), (300, 301), (300, 299)):
        with pytest.raises(IndexError):
            ring.clip(start, end)


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        ("hello wonderful world", 17, "hello wonderful"),
        ("hello, world", 7, "hello,"),
        ("hello", 4, ""),
        ("今天天气很好", 4, "今天天气"),
        ("今天,天气", 3, "今天,"),
        ("don't stop", 4, ""),
        ("", 5, ""),
    ],
)
def test_confirmed_text_ends_between_words(text: str, limit: int, expected: str) -> None:
    assert confirmed_prefix(text, limit) == expected


def test_text_is_confirmed_when_two_decodes_agree_and_never_taken_back() -> None:
    rollback = Rollback(rollback_chars=8, stage1_decodes=3)
    rollback.observe("we will meet on monday", 1)
    assert rollback.fixed == ""
    rollback.observe("we will meet on tuesday at noon", 2)
    assert rollback.fixed == "we will meet on"
    assert rollback.previous_text() == ""
    rollback.observe("you will meet", 3)
    assert rollback.fixed == "we will meet on"
    assert rollback.hypothesis == "we will meet on tuesday at noon"
    assert rollback.previous_text() == "we will meet on"


def test_a_word_is_confirmed_only_where_both_decodes_end_it() -> None:
    rollback = Rollback(rollback_chars=8, stage1_decodes=3)
    rollback.observe("we moved the lawnch to thursday", 1)
    rollback.observe("we moved the lawn to thursday night", 2)
    assert rollback.fixed == "we moved the"


def test_a_contradiction_makes_the_next_decode_continue_the_confirmed_text() -> None:
    rollback = Rollback(rollback_chars=4, stage1_decodes=10)
    for text in ("one two three four", "one two three four five"):
        rollback.observe(text, 1)
    assert rollback.previous_text() == ""
    rollback.observe("won too free", 2)
    assert rollback.previous_text() == rollback.fixed == "one two three four"


def _pieces(text: str, first: int) -> list[CtcPiece]:
    return [CtcPiece(f" {word}".encode(), first + 16_000 * n) for n, word in enumerate(text.split())]


def test_windows_of_ctc_text_are_joined_without_doubling_words() -> None:
    timeline = CtcTimeline(0, context=16_000)
    timeline.merge(_pieces("a b c d", 0), 0)
    # A window that begins at 2 s: its first second lacks context.
    timeline.merge(_pieces("x d e f", 32_000), 32_000)
    assert timeline.text() == "a b c d e f"
    assert timeline.tail(64_000) == "e f"
    assert timeline.tail(999_999) == ""


@pytest.mark.parametrize("moved", [-960, 960])
def test_a_token_that_two_passes_hear_at_other_frames_is_there_once(moved: int) -> None:
    timeline = CtcTimeline(0, context=16_000)
    timeline.merge(_pieces("a b c d", 0), 0)
    # "c" lies where the passes are joined: a frame earlier or later it is on the other side.
    timeline.merge(_pieces("b c d e", 16_000 + moved), 16_000 - moved)
    assert timeline.text() == "a b c d e"


def test_the_tail_begins_with_a_whole_word() -> None:
    timeline = CtcTimeline(0, context=16_000)
    timeline.merge([CtcPiece(b" won", 0), CtcPiece(b"der", 100), CtcPiece(b" ful", 200)], 0)
    assert timeline.tail(50) == "ful"
    timeline.merge([CtcPiece("天".encode(), 100), CtcPiece("气".encode(), 200)], 0)
    assert timeline.tail(50) == "天气"


def _update(event: Event) -> Update:
    return Update(event, Cursors(0, 0, 0))


def _final(index: int) -> Update:
    return _update(Final(index, Segment(f"text {index}", float(index), index + 0.5)))


def _partial(index: int, text: str) -> Update:
    return _update(Partial(index, 0, 0, "", text, 0))


async def _all(outbox: Outbox, after: float | None = None) -> list[Event]:
    return [update.event async for update in outbox.attach(after)]


async def test_unread_partials_are_replaced_and_finals_never() -> None:
    outbox = Outbox(max_finals=10)
    updates = [_partial(0, "a"), _partial(0, "b"), _final(0), _final(1), _partial(2, "c"), _partial(2, "d")]
    for update in [*updates, _update(Ended(EndReason.CLIENT, 1.0))]:
        outbox.put(update)
    events = await _all(outbox)
    assert [event.text for event in events if isinstance(event, Partial)] == ["b", "d"]
    assert [event.index for event in events if isinstance(event, Final)] == [0, 1]


async def test_a_client_that_returns_gets_what_it_has_not_seen() -> None:
    outbox = Outbox(max_finals=3)
    first = outbox.attach()
    for index in range(5):
        outbox.put(_final(index))
    assert (await anext(first)).event == _final(0).event
    outbox.detach()
    outbox.put(_update(Refined(4, Segment("text 4", 4.0, 4.5, speaker="SPK1"))))
    outbox.put(_partial(5, "running"))
    outbox.put(_update(Ended(EndReason.CLIENT, 6.0)))
    events = await _all(outbox, after=3.5)
    assert [type(event) for event in events] == [Final, Refined, Partial, Ended]
    assert events[0] == _final(4).event
    assert [update async for update in first] == []


async def test_a_client_that_returns_gets_a_final_that_was_taken_back_where_the_one_before_it_ends() -> None:
    outbox = Outbox(max_finals=3)
    outbox.attach()
    finals = [_final(0), _update(Final(1, Segment("", 0.5, 0.5))), _final(2)]
    for update in finals:
        outbox.put(update)
    outbox.detach()
    outbox.put(_update(Ended(EndReason.CLIENT, 6.0)))
    events = await _all(outbox, after=0.5)
    assert [event.index for event in events if isinstance(event, Final)] == [1, 2]


async def test_a_checkpoint_is_answered_to_a_client_that_returns_after_the_results_it_speaks_of() -> None:
    outbox = Outbox(max_finals=3)
    outbox.attach()
    told = [_final(0), _update(CheckpointReached(7)), _partial(1, "running"), _update(CheckpointReached(8))]
    for update in told:
        outbox.put(update)
    # One is lost with the connection, one is reached while nobody is there.
    outbox.detach()
    outbox.put(_update(CheckpointReached(9)))
    outbox.put(_update(Ended(EndReason.CLIENT, 6.0)))
    answers = [CheckpointReached(number) for number in (7, 8, 9)]
    expected = [_final(0).event, _partial(1, "running").event, *answers, Ended(EndReason.CLIENT, 6.0)]
    assert await _all(outbox, after=0.0) == expected
    # The connection may break again before the answers are there.
    outbox.detach()
    assert await _all(outbox, after=0.5) == expected[1:]


async def test_answers_to_checkpoints_are_kept_in_bounded_memory() -> None:
    outbox = Outbox(max_finals=3)
    outbox.detach()
    for number in range(100):
        outbox.put(_update(CheckpointReached(number)))
    outbox.put(_update(Ended(EndReason.CLIENT, 6.0)))
    answers = [event for event in await _all(outbox, after=0.0) if isinstance(event, CheckpointReached)]
    assert [answer.number for answer in answers] == list(range(84, 100))


async def test_a_new_reader_ends_the_one_before() -> None:
    outbox = Outbox(max_finals=3)
    waiting = asyncio.create_task(_all(outbox))
    await asyncio.sleep(0)
    outbox.attach(0.0)
    assert await asyncio.wait_for(waiting, 1) == []


def test_partials_give_way_while_finals_are_late() -> None:
    ticks = itertools.count()
    load = Load(limit=4, clock=lambda: float(next(ticks)), target=0.5)
    assert load.spare()
    with contextlib.ExitStack() as partials:
        for _ in range(4):
            partials.enter_context(load.decoding(JobKind.PARTIAL))
        assert not load.spare()
    for _ in range(6):
        with load.decoding(JobKind.FINAL):
            pass
    assert load.spare()
    assert 1 < load.stretch() < 2
    with load.decoding(JobKind.FINAL):
        assert not load.spare()


def test_a_gateway_that_comes_late_makes_ctc_passes_rarer_until_it_has_caught_up() -> None:
    load = Load(limit=4, clock=lambda: 0.0)
    for _ in range(30):
        load.lagged(0.15)
    assert load.stretch() == pytest.approx(3.0, rel=0.02)
    for _ in range(30):
        load.lagged(0.001)
    assert load.stretch() == 1.0
