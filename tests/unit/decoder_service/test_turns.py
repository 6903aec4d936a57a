"""Requests enter a busy engine together, soon, and whoever leaves holds nobody up."""

from __future__ import annotations

import asyncio

import pytest

from decoder_service.engines.turns import Turns


async def settled(task: asyncio.Task[None]) -> bool:
    """Whether a task has ended once everything that can run has run."""
    for _ in range(5):
        await asyncio.sleep(0)
    return task.done()


@pytest.mark.parametrize(("interval", "others"), [(0.0, 1000), (60.0, 8), (60.0, 0)])
def test_nobody_waits_where_it_is_off_or_the_engine_has_little_to_do(interval: float, others: int) -> None:
    asyncio.run(asyncio.wait_for(Turns(interval, few=8).wait(others), timeout=5))


def test_those_who_come_within_the_interval_enter_together() -> None:
    async def run() -> None:
        turns = Turns(0.2, few=2)
        first = asyncio.create_task(turns.wait(3))
        assert not await settled(first)
        second = asyncio.create_task(turns.wait(4))
        assert not await settled(second)
        await first
        assert await settled(second)
        third = asyncio.create_task(turns.wait(5))
        assert not await settled(third)
        await third

    asyncio.run(run())


def test_one_who_gives_up_holds_nobody_up() -> None:
    async def run() -> None:
        turns = Turns(0.05, few=0)
        leaving, staying = (asyncio.create_task(turns.wait(others)) for others in (1, 2))
        assert not await settled(leaving)
        leaving.cancel()
        await asyncio.wait_for(staying, timeout=5)
        assert leaving.cancelled()

    asyncio.run(run())
