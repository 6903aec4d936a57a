"""What recordings may have outstanding: bounds in segments and seconds, in the order they came."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.gate import SegmentGate


class Sender:
    """Sends segments through a gate; `inside` are those at the encoder, `sent` all that were let in."""

    def __init__(self, gate: SegmentGate) -> None:
        self.gate = gate
        self.sent: list[str] = []
        self.encoded: dict[str, Callable[[], None]] = {}
        self.answered: dict[str, asyncio.Event] = {}

    def send(self, name: str, seconds: float) -> asyncio.Task[None]:
        return asyncio.create_task(self._send(name, seconds))

    async def _send(self, name: str, seconds: float) -> None:
        async with self.gate.segment(seconds) as encoded:
            self.sent.append(name)
            self.encoded[name], self.answered[name] = encoded, asyncio.Event()
            await self.answered[name].wait()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_segments_wait_for_room_in_the_queues_and_go_in_the_order_they_came() -> None:
    sender = Sender(SegmentGate(10, lambda: 100.0))
    tasks = [sender.send(name, seconds) for name, seconds in (("a", 40), ("b", 30), ("c", 50), ("d", 1))]
    await settle()
    assert sender.sent == ["a", "b"]
    sender.encoded["b"]()
    await settle()
    assert sender.sent == ["a", "b"]
    sender.encoded["a"]()
    sender.encoded["a"]()
    await settle()
    assert sender.sent == ["a", "b", "c", "d"]
    for event in sender.answered.values():
        event.set()
    await asyncio.gather(*tasks)


async def test_no_more_segments_are_unanswered_than_allowed() -> None:
    sender = Sender(SegmentGate(2, lambda: 100.0))
    tasks = [sender.send(name, 1.0) for name in "abc"]
    await settle()
    sender.encoded["a"]()
    await settle()
    assert sender.sent == ["a", "b"]
    sender.answered["b"].set()
    await settle()
    assert sender.sent == ["a", "b", "c"]
    for event in sender.answered.values():
        event.set()
    await asyncio.gather(*tasks)


async def test_a_segment_longer_than_the_queue_goes_alone() -> None:
    sender = Sender(SegmentGate(10, lambda: 0.0))
    tasks = [sender.send(name, 60.0) for name in "ab"]
    await settle()
    assert sender.sent == ["a"]
    sender.answered["a"].set()
    await settle()
    assert sender.sent == ["a", "b"]
    sender.answered["b"].set()
    await asyncio.gather(*tasks)


async def test_cancelled_segments_leave_no_hole() -> None:
    sender = Sender(SegmentGate(10, lambda: 100.0))
    running, waiting, behind = sender.send("a", 70), sender.send("b", 70), sender.send("c", 5)
    await settle()
    waiting.cancel()
    await settle()
    assert sender.sent == ["a", "c"]
    running.cancel()
    behind.cancel()
    await settle()
    last = sender.send("d", 75)
    await settle()
    assert sender.sent == ["a", "c", "d"]
    last.cancel()
    await asyncio.gather(running, waiting, behind, last, return_exceptions=True)


async def test_waiting_segments_that_leave_together_harm_nobody() -> None:
    """Their turns are cancelled before any of them runs: what leaves then must pass over them."""
    sender = Sender(SegmentGate(10, lambda: 100.0))
    running = sender.send("a", 70)
    leaving = [sender.send(name, 10) for name in "bcd"]
    behind = sender.send("e", 70)
    await settle()
    assert sender.sent == ["a"]
    for task in leaving:
        task.cancel()
    sender.encoded["a"]()
    await settle()
    assert sender.sent == ["a", "e"]
    sender.encoded["e"]()
    last = sender.send("f", 75)
    await settle()
    assert sender.sent == ["a", "e", "f"]
    for event in sender.answered.values():
        event.set()
    outcomes = await asyncio.gather(running, *leaving, behind, last, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes[1:4]] == [asyncio.CancelledError] * 3
    assert outcomes[:1] + outcomes[4:] == [None, None, None]


async def test_none_waits_for_encoders_that_are_gone() -> None:
    """A pool without encoders has no room at all, and nobody inside will make any."""
    room = 100.0
    sender = Sender(SegmentGate(10, lambda: room))
    for name, seconds in (("a", 0.1), ("b", 0.2), ("c", 0.7)):
        sender.send(name, seconds)
    await settle()
    for name in "bca":
        sender.answered[name].set()
    await settle()
    room = 0.0
    tasks = [sender.send(name, 30.0) for name in "de"]
    await settle()
    assert sender.sent == [*"abc", "d"]
    sender.answered["d"].set()
    await settle()
    assert sender.sent == [*"abc", "d", "e"]
    sender.answered["e"].set()
    await asyncio.gather(*tasks)
