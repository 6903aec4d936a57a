"""Work that comes in bursts, one piece in each turn of the event loop, so that all else has its turns too."""

from __future__ import annotations

import asyncio


class Turns:
    """First come, first served. Made for one event loop."""

    def __init__(self) -> None:
        self._taken = asyncio.Lock()

    async def next(self) -> None:
        """Returns at once to the first who asks in a turn of the loop, to each other one in a later turn.

        Who is cancelled meanwhile leaves the line.
        """
        await self._taken.acquire()
        asyncio.get_running_loop().call_soon(self._taken.release)
