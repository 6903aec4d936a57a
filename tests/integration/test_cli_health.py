"""`tandem health` against a real server in each of its states."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tandem.cli import main
from tandem.rpc.server import LIVENESS, ServerConfig, TierServer


async def health(*arguments: str) -> int:
    return await asyncio.to_thread(main, ["health", *arguments])


async def test_it_tells_liveness_readiness_and_absence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"unix:{tmp_path}/tier.sock"
    assert await health(address) == 1
    assert "tandem health: " in capsys.readouterr().err
    server = TierServer(ServerConfig(address, drain_seconds=0), ["tandem.test.Service"])
    await server.start()
    try:
        assert await health(address) == 1
        assert await health(address, "--service", LIVENESS) == 0
        assert capsys.readouterr().out == "NOT_SERVING\nSERVING\n"
        waiting = asyncio.create_task(health(address, "--wait", "20"))
        await server.ready()
        assert await waiting == 0
        assert await health(address, "--service", "tandem.test.Service") == 0
        assert await health(address, "--service", "tandem.test.Other") == 1
    finally:
        await server.stop()


async def test_it_waits_for_a_server_that_is_not_there_yet(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/tier.sock"
    waiting = asyncio.create_task(health(address, "--wait", "20"))
    await asyncio.sleep(0.3)
    server = TierServer(ServerConfig(address, drain_seconds=0), [])
    await server.start()
    await server.ready()
    try:
        assert await waiting == 0
    finally:
        await server.stop()
