"""Bursts of work leave turns of the event loop to everything else."""

from __future__ import annotations

import asyncio

from decoder_service.engines.turns import Turns


async def test_others_run_between_pieces_that_came_together_in_their_order() -> None:
    turns, seen = Turns(), list[int | str]()

    async def piece(number: int) -> None:
        await turns.next()
        seen.append(number)

    async def other() -> None:
        while len(seen) < 20:
            seen.append("other")
            await asyncio.sleep(0)

    await asyncio.gather(*(piece(number) for number in range(4)), other())
    assert [one for one in seen if one != "other"] == [0, 1, 2, 3]
    for number in range(3):
        assert "other" in seen[seen.index(number) : seen.index(number + 1)]


async def test_one_that_leaves_the_line_holds_nobody_up() -> None:
    turns, seen = Turns(), list[int]()

    async def piece(number: int) -> None:
        await turns.next()
        seen.append(number)

    tasks = [asyncio.create_task(piece(number)) for number in range(4)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    tasks[2].cancel()
    await asyncio.wait_for(asyncio.gather(tasks[0], tasks[3]), 10)
    assert seen == [0, 3]


async def test_who_comes_alone_does_not_wait() -> None:
    turns, ticks = Turns(), list[int]()
    for _ in range(3):
        asyncio.get_running_loop().call_soon(ticks.append, 1)
        await turns.next()
        assert not ticks
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        ticks.clear()
