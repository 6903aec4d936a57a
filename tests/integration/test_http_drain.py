"""SIGTERM: what runs is finished, what is new is refused, and the process ends by itself."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.http import HttpStack, http_stack
from tests.support.recordings import vad_weights
from tests.support.services import NANO


@pytest.fixture
def draining(derived_files: None) -> Iterator[HttpStack]:
    """A stack of its own, whose gateway stays in the balancer for two seconds after SIGTERM."""
    flags = ["--vad-model", str(vad_weights()), "--lameduck-seconds", "2"]
    with http_stack(NANO, flags, ["--max-model-len", "1024"]) as running:
        yield running


async def test_running_requests_are_finished_and_new_ones_refused(
    draining: HttpStack, dialogue: Path
) -> None:
    gateway = next(tier for tier in draining.stack.tiers if tier.name == "gateway")
    async with httpx.AsyncClient(base_url=draining.url, timeout=120) as client:
        fields = {"max_new_tokens": "600"}
        running = asyncio.create_task(client.post("/asr", files={"file": dialogue.read_bytes()}, data=fields))
        await asyncio.sleep(0.5)
        gateway.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.5)
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/ready")).status_code == 503
        assert not running.done()
        await asyncio.sleep(2.5)
        with pytest.raises(httpx.ConnectError):
            async with httpx.AsyncClient(base_url=draining.url) as late:
                await late.get("/health")
        answer = await running
    assert answer.status_code == 200
    assert answer.json()["segments"]
    assert await asyncio.to_thread(gateway.process.wait, 20) == 0
