"""WS /ws with the `websockets` client: the guide's messages, errors for what it leaves out, resets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import soundfile
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tandem import Client, Transcript
from tests.integration.conftest import MAX_AUDIO_BYTES
from tests.support.http import PAGE, HttpStack


@pytest.fixture
async def ws(http_services: HttpStack) -> AsyncIterator[ClientConnection]:
    async with connect(f"ws://{http_services.address}/ws") as connection:
        yield connection


@pytest.fixture(scope="module")
def pcm(english: Path) -> bytes:
    samples, _ = soundfile.read(english, dtype="int16")
    return bytes(samples.astype("<i2").tobytes())


@pytest.fixture(scope="module")
def expected(http_services: HttpStack, english: Path) -> Transcript:
    with Client(http_services.grpc) as client:
        return client.recognize(english, timeout=60)


async def receive(ws: ClientConnection) -> Any:
    return json.loads(await asyncio.wait_for(ws.recv(), 60))


async def ask(ws: ClientConnection, message: str | bytes) -> Any:
    await ws.send(message)
    return await receive(ws)


async def result(ws: ClientConnection) -> Any:
    """STOP, the final message, and `stopped` after it."""
    await ws.send("STOP")
    while not (final := await receive(ws)).get("is_final"):
        assert final == {"sentences": [], "is_final": False, "duration_ms": final["duration_ms"]}
    assert await receive(ws) == {"event": "stopped"}
    return final


async def test_every_command_is_answered_in_any_case_of_letters(ws: ClientConnection) -> None:
    assert await ask(ws, "language:中文") == {"event": "language_set", "language": "中文"}
    assert await ask(ws, "LANGUAGE:") == {"event": "language_set", "language": None}
    assert await ask(ws, "HotWords:北京, 开放时间") == {
        "event": "hotwords_set",
        "hotwords": ["北京", "开放时间"],
    }
    assert await ask(ws, "SPK:on") == {"event": "spk_set", "spk": True}
    assert await ask(ws, "spk:false") == {"event": "spk_set", "spk": False}
    assert await ask(ws, "start") == {"event": "started"}
    assert await ask(ws, "stop") == {"event": "stopped"}


async def test_the_final_message_is_the_transcript_in_milliseconds(
    ws: ClientConnection, pcm: bytes, expected: Transcript
) -> None:
    await ask(ws, "START")
    # 100 ms at a time, and an odd number of bytes in every message.
    for offset in range(0, len(pcm), 3201):
        await ws.send(pcm[offset : offset + 3201])
    final = await result(ws)
    assert final["duration_ms"] == 9000
    assert [(s["text"], s["start"], s["end"]) for s in final["sentences"]] == [
        (s.text, round(s.start * 1000), round(s.end * 1000)) for s in expected.segments
    ]
    words = [w for s in final["sentences"] for w in s.get("words", ())]
    assert [(w["word"], w["start"], w["end"]) for w in words] == [
        (w.text, round(w.start * 1000), round(w.end * 1000)) for s in expected.segments for w in s.words
    ]


async def test_audio_is_acknowledged_with_the_time_received(ws: ClientConnection, pcm: bytes) -> None:
    await ask(ws, "START")
    for count in (1, 2, 3):
        answer = await ask(ws, pcm[:32000])
        assert answer == {"sentences": [], "is_final": False, "duration_ms": 1000 * count}


async def test_start_begins_anew_and_settings_stay(
    ws: ClientConnection, pcm: bytes, expected: Transcript, http_services: HttpStack, english: Path
) -> None:
    await ask(ws, "START")
    await ask(ws, pcm[:64000])
    await ask(ws, "START")
    await ws.send(pcm)
    first = await result(ws)
    assert [s["text"] for s in first["sentences"]] == [s.text for s in expected.segments]
    await ask(ws, "LANGUAGE:中文")
    await ask(ws, "START")
    await ws.send(pcm)
    second = await result(ws)
    assert [s["text"] for s in second["sentences"]] != [s["text"] for s in first["sentences"]]


async def test_what_the_guides_server_drops_is_an_error_here(ws: ClientConnection) -> None:
    early = await ask(ws, b"\0" * 3200)
    assert (early["event"], early["reason"]) == ("error", "INVALID_REQUEST")
    assert "START" in early["error"]
    unknown = await ask(ws, "DANCE:now")
    assert unknown["event"] == "error"
    assert "DANCE" in unknown["error"]
    assert await ask(ws, "STOP") == {"event": "stopped"}


async def test_too_much_audio_ends_the_recording_and_not_the_connection(ws: ClientConnection) -> None:
    await ask(ws, "START")
    block = b"\0" * 1_000_000
    errors: list[Any] = []
    for _ in range(MAX_AUDIO_BYTES // len(block) + 1):
        await ws.send(block)
    while not errors:
        message = await receive(ws)
        errors += [message] if message.get("event") == "error" else []
    assert errors[0]["reason"] == "LIMIT_EXCEEDED"
    await ws.send("STOP")
    assert await receive(ws) == {"event": "stopped"}
    assert await ask(ws, "START") == {"event": "started"}


async def test_a_message_beyond_the_limit_is_refused(ws: ClientConnection) -> None:
    await ask(ws, "START")
    with pytest.raises(ConnectionClosed) as closed:
        await ws.send(b"\0" * (MAX_AUDIO_BYTES + 100))
        await receive(ws)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009


async def test_pages_of_other_origins_are_kept_out(http_services: HttpStack) -> None:
    url = f"ws://{http_services.address}/ws"
    with pytest.raises(InvalidStatus) as refused:
        async with connect(url, origin="http://elsewhere.example"):  # type: ignore[arg-type]
            pass
    assert refused.value.response.status_code == 403
    for origin in (PAGE, http_services.url):
        async with connect(url, origin=origin) as ws:  # type: ignore[arg-type]
            assert await ask(ws, "START") == {"event": "started"}
