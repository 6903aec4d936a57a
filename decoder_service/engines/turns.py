"""When requests enter a busy engine: together, because every step that reads a prompt is slow for all."""

from __future__ import annotations

import asyncio


class Turns:
    """Makes requests that meet more than `few` others wait for a common entry, at most `interval` seconds.

    vLLM replays one CUDA graph for a step in which every request adds a token; a step that also reads a
    prompt runs attention from Python, layer by layer. Prompts that come one by one make it so for every step.
    """

    def __init__(self, interval: float, few: int = 8) -> None:
        self._interval, self._few = interval, few
        self._entry: asyncio.Future[None] | None = None

    async def wait(self, others: int) -> None:
        """Return when a request may enter an engine with so many others. Cancelling hurts nobody else."""
        if self._interval <= 0 or others <= self._few:
            return
        if self._entry is None:
            loop = asyncio.get_running_loop()
            self._entry = loop.create_future()
            loop.call_later(self._interval, self._open)
        await asyncio.shield(self._entry)

    def _open(self) -> None:
        entry, self._entry = self._entry, None
        if entry is not None and not entry.done():
            entry.set_result(None)
