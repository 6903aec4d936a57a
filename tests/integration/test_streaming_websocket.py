"""The real-time WebSocket service with real tiers, message for message, and the guide's own client."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile
from websockets.asyncio.client import ClientConnection, connect

from tandem.launcher import Stack, spawn, wait_ready
from tests.support.live import paced, pcm
from tests.support.ports import free_port
from tests.support.recordings import DATA

GUIDE = DATA / "guide" / "realtime_ws.py.txt"


def _address(stack: Stack) -> str:
    return f"ws://127.0.0.1:{stack.config.realtime_port}"


@pytest.fixture
def server(live_services: Stack) -> str:
    return _address(live_services)


@pytest.fixture
def client_mode(live_services: Stack, tmp_path: Path) -> Iterator[str]:
    """Another gateway in front of the same encoder."""
    words = tmp_path / "words.txt"
    words.write_text("Tandem\n\n朴素\n", encoding="utf-8")
    at, port = f"unix:{tmp_path}/gateway.sock", free_port()
    flags = ["--listen", at, "--encoder", live_services.config.addresses.encoder, "--http-port", "0"]
    flags += ["--realtime-port", str(port), "--endpoint-mode", "client"]
    flags += ["--hotword-file", str(words), "--language", "中文"]
    gateway = spawn("gateway", "gateway", flags, at, tmp_path)
    try:
        wait_ready([gateway], 60)
        yield f"ws://127.0.0.1:{port}"
    finally:
        gateway.end(grace=15)


async def receive(socket: ClientConnection) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(await asyncio.wait_for(socket.recv(), 30))
    return message


async def until(socket: ClientConnection, key: str, value: object) -> list[dict[str, Any]]:
    messages = [await receive(socket)]
    while messages[-1].get(key) != value:
        messages.append(await receive(socket))
    return messages


async def test_settings_are_acknowledged_before_and_after_start(server: str) -> None:
    async with connect(server) as socket:
        for sent, answer in [
            ("HOTWORDS:张三, 北京", {"event": "hotwords_set", "hotwords": ["张三", "北京"]}),
            ("language:中文", {"event": "language_set", "language": "中文"}),
            ("START", {"event": "started"}),
            ("LANGUAGE:", {"event": "language_set", "language": ""}),
            ("SPK:no", {"event": "spk_set", "spk": False}),
            (
                "POSTPROCESS_HOTWORDS:a=>b,c→d",
                {"event": "postprocess_hotwords_set", "postprocess_hotwords": {"a": "b", "c": "d"}},
            ),
            ("PING", {"event": "pong"}),
            ("COMMIT", {"event": "error", "error": "COMMIT requires --endpoint-mode client"}),
        ]:
            await socket.send(sent)
            assert await receive(socket) == answer
        await socket.send("no command")
        await socket.send("STOP")
        assert await receive(socket) == {"event": "stopped"}


async def test_sentences_are_locked_and_the_partial_moves(server: str) -> None:
    async with connect(server) as socket:
        await socket.send(b"\0" * 3200)
        await socket.send("START")
        assert await receive(socket) == {"event": "started"}

        async def speak() -> None:
            async for frame in paced(pcm("mandarin_6s.wav", silence=2.6), speed=2):
                await socket.send(frame)
            await socket.send("STOP")

        speaking = asyncio.create_task(speak())
        messages = await until(socket, "event", "stopped")
        await speaking
    *results, stopped = messages
    assert stopped == {"event": "stopped"}
    keys = {"sentences", "partial", "partial_start_ms", "duration_ms", "is_final"}
    assert all(set(message) == keys for message in results)
    assert [message["is_final"] for message in results] == [False] * (len(results) - 1) + [True]
    assert any(message["partial"] for message in results)
    locked: list[Any] = []
    for message in results:
        assert message["sentences"][: len(locked)] == locked
        locked = message["sentences"]
    assert locked
    assert all(set(sentence) == {"text", "start", "end"} for sentence in locked)
    last = results[-1]
    assert (last["partial"], last["partial_start_ms"], last["duration_ms"]) == ("", 0, 8600)


async def test_start_begins_anew_on_the_same_connection(server: str) -> None:
    async with connect(server) as socket:
        for _ in range(2):
            await socket.send("START")
            assert await receive(socket) == {"event": "started"}
            await socket.send(pcm("mandarin_206ms.wav", silence=0.5).tobytes())
            await socket.send("STOP")
            *_, final, _stopped = await until(socket, "event", "stopped")
            assert final["duration_ms"] == 706


async def test_commit_ends_an_utterance_and_the_connection_stays(client_mode: str) -> None:
    async with connect(client_mode) as socket:
        await socket.send("COMMIT")
        refused = {"event": "error", "error": "Session is not active; send START first"}
        assert await receive(socket) == refused
        await socket.send("START")
        await receive(socket)
        ends = []
        for _ in range(2):
            await socket.send(pcm("mandarin_6s.wav").tobytes())
            await socket.send("COMMIT")
            final = (await until(socket, "is_final", True))[-1]
            ends.append([sentence["end"] for sentence in final["sentences"]])
        length = round(len(pcm("mandarin_6s.wav")) / 16)
        assert ends == [[length], [2 * length]]
        await socket.send("COMMIT")
        assert (await until(socket, "is_final", True))[-1]["sentences"] == []
        await socket.send("STOP")
        assert (await until(socket, "event", "stopped"))[-1] == {"event": "stopped"}


def test_the_guides_own_client_prints_a_transcript(server: str, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "audio.wav", pcm("mandarin_6s.wav"), 16_000)
    code = GUIDE.read_text(encoding="utf-8").replace("ws://localhost:10095", server)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert re.match(r"\[\d\.\ds\] .", done.stdout)
