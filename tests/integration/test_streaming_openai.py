"""OpenAI's real-time transcription with real tiers, over a plain WebSocket and with openai's own client."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import numpy as np
import pytest
from openai import AsyncOpenAI
from openai.types.beta.realtime import TranscriptionSessionUpdatedEvent
from openai.types.realtime import (
    ConversationItemAdded,
    ConversationItemDone,
    RealtimeTranscriptionSessionAudioInputParam,
    SessionCreatedEvent,
    SessionUpdatedEvent,
)
from openai.types.realtime import ConversationItemInputAudioTranscriptionCompletedEvent as Completed
from openai.types.realtime.realtime_transcription_session_audio_input_turn_detection_param import ServerVad
from pydantic import BaseModel
from websockets.asyncio.client import ClientConnection, connect

from gateway.audio.live import Resampler
from tandem.launcher import Stack
from tests.support.live import paced, pcm

_TRANSCRIPTION = "conversation.item.input_audio_transcription"


@pytest.fixture
def port(live_services: Stack) -> int:
    return live_services.config.http_port


def at_24k(samples: np.ndarray[Any, np.dtype[np.int16]]) -> np.ndarray[Any, np.dtype[np.int16]]:
    positions = np.arange(len(samples) * 3 // 2) * 2 / 3
    return np.asarray(np.interp(positions, np.arange(len(samples)), samples), dtype=np.int16)


async def send(socket: ClientConnection, kind: str, **fields: Any) -> None:
    await socket.send(json.dumps({"type": kind, "event_id": f"mine_{kind}", **fields}))


async def append(socket: ClientConnection, data: bytes) -> None:
    for first in range(0, len(data), 4800):
        audio = base64.b64encode(data[first : first + 4800]).decode()
        await send(socket, "input_audio_buffer.append", audio=audio)


async def until(socket: ClientConnection, kind: str) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    while not events or events[-1]["type"] != kind:
        events.append(json.loads(await asyncio.wait_for(socket.recv(), 30)))
    return events


def url(port: int) -> str:
    return f"ws://127.0.0.1:{port}/v1/realtime?intent=transcription"


async def test_server_turns_have_their_events_in_order(port: int) -> None:
    async with connect(url(port)) as socket:
        (created,) = await until(socket, "session.created")
        assert created["session"]["audio"]["input"]["turn_detection"]["type"] == "server_vad"
        await append(socket, at_24k(pcm("mandarin_6s.wav", silence=1.0)).tobytes())
        events = await until(socket, f"{_TRANSCRIPTION}.completed")
    # Half a second of silence ends a turn: the next one may have begun.
    events = [event for event in events if event.get("item_id") == events[-1]["item_id"]]
    by_kind = {event["type"]: event for event in events}
    order = [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        f"{_TRANSCRIPTION}.completed",
    ]
    kinds = [event["type"] for event in events]
    assert sorted(order, key=kinds.index) == order
    assert by_kind[order[0]]["audio_start_ms"] < 1500
    assert 1500 < by_kind[order[1]]["audio_end_ms"] < 6500
    assert len({event["event_id"] for event in events}) == len(events)
    deltas = [event["delta"] for event in events if event["type"] == f"{_TRANSCRIPTION}.delta"]
    assert "".join(deltas) == by_kind[order[3]]["transcript"]
    assert by_kind[order[3]]["usage"]["type"] == "duration"


async def test_the_client_ends_its_own_turns_in_telephone_audio(port: int) -> None:
    async with connect(url(port)) as socket:
        await until(socket, "session.created")
        session = {
            "input_audio_format": "g711_ulaw",
            "input_audio_transcription": {"model": "any", "language": "zh", "prompt": "朴素, Tandem"},
            "turn_detection": None,
        }
        await send(socket, "transcription_session.update", session=session)
        (updated,) = await until(socket, "transcription_session.updated")
        session = updated["session"]
        assert (session["input_audio_format"], session["turn_detection"]) == ("g711_ulaw", None)
        await send(socket, "input_audio_buffer.commit")
        (refused,) = await until(socket, "error")
        assert refused["error"]["event_id"] == "mine_input_audio_buffer.commit"
        committed = []
        for _ in range(2):
            await append(socket, b"\xff" * 2000 + b"\x10\x90" * 4000)
            await send(socket, "input_audio_buffer.commit")
            committed += await until(socket, f"{_TRANSCRIPTION}.completed")
        kinds = [event["type"] for event in committed]
        assert "input_audio_buffer.speech_started" not in kinds
        first, second = (e for e in committed if e["type"] == "input_audio_buffer.committed")
        assert first["previous_item_id"] is None
        assert second["previous_item_id"] == first["item_id"]


async def test_cleared_audio_is_never_transcribed(port: int) -> None:
    async with connect(url(port)) as socket:
        await until(socket, "session.created")
        await send(socket, "session.update", session={"audio": {"input": {"turn_detection": None}}})
        await append(socket, at_24k(pcm("mandarin_6s.wav")).tobytes())
        await send(socket, "input_audio_buffer.clear")
        await send(socket, "input_audio_buffer.commit")
        events = await until(socket, "error")
        assert "input_audio_buffer.cleared" in [event["type"] for event in events]
        assert not any(event["type"].endswith(".completed") for event in events)


@pytest.mark.parametrize(
    ("event", "param"),
    [
        ({"type": "session.update", "session": {"audio": {"input": {"format": {"type": "mp3"}}}}}, "format"),
        ({"type": "session.update", "session": 3}, "session"),
        ({"type": "input_audio_buffer.append", "audio": "?"}, "audio"),
        ({"type": "response.create"}, "type"),
    ],
)
async def test_bad_events_are_answered_and_the_session_goes_on(
    port: int, event: dict[str, Any], param: str
) -> None:
    async with connect(url(port)) as socket:
        await until(socket, "session.created")
        await socket.send(json.dumps({**event, "event_id": "e1"}))
        (answer,) = await until(socket, "error")
        assert answer["error"]["type"] == "invalid_request_error"
        assert answer["error"]["event_id"] == "e1"
        assert param in answer["error"]["param"]
        await send(socket, "session.update", session={})
        await until(socket, "session.updated")


async def test_openais_own_client_understands_every_event(port: int) -> None:
    client = AsyncOpenAI(api_key="none", base_url=f"http://127.0.0.1:{port}/v1")
    async with client.realtime.connect(extra_query={"intent": "transcription"}) as live:
        turn: ServerVad = {"type": "server_vad", "threshold": 0.4}
        source: RealtimeTranscriptionSessionAudioInputParam = {
            "transcription": {"model": "any", "language": "zh"},
            "turn_detection": turn,
        }
        await live.session.update(session={"type": "transcription", "audio": {"input": source}})

        async def speak() -> None:
            async for frame in paced(at_24k(pcm("mandarin_6s.wav", silence=1.0)), speed=4):
                await live.input_audio_buffer.append(audio=base64.b64encode(frame).decode())

        speaking = asyncio.create_task(speak())
        seen: list[BaseModel] = []
        async with asyncio.timeout(30):
            while not isinstance(seen[-1] if seen else None, Completed):
                seen.append(await live.recv())
        await speaking
    # The client itself is lenient; validated, its own types say whether each event is whole.
    for event in seen:
        type(event).model_validate(event.model_dump())
    assert {SessionCreatedEvent, SessionUpdatedEvent, ConversationItemAdded, ConversationItemDone} <= {
        type(event) for event in seen
    }
    completed = seen[-1]
    assert isinstance(completed, Completed)
    assert completed.transcript


async def test_openais_earlier_client_understands_too(port: int) -> None:
    client = AsyncOpenAI(api_key="none", websocket_base_url=f"ws://127.0.0.1:{port}/v1")
    async with client.beta.realtime.connect(model="any", extra_query={"intent": "transcription"}) as live:
        await live.transcription_session.update(
            session={"input_audio_format": "g711_alaw", "turn_detection": {"type": "server_vad"}}
        )
        async with asyncio.timeout(30):
            created, event = [await live.recv() for _ in range(2)]
        # Its types do not name the first event, which the service sent all the same.
        assert created.to_dict()["type"] == "transcription_session.created"
        assert isinstance(event, TranscriptionSessionUpdatedEvent)
        assert event.session.input_audio_format == "g711_alaw"


def test_resampling_in_pieces_gives_what_resampling_at_once_gives() -> None:
    samples = at_24k(pcm("mandarin_206ms.wav", silence=0.3))
    whole, pieces = Resampler(24_000), Resampler(24_000)
    expected = np.concatenate([whole.push(samples), whole.finish()])
    parts = [pieces.push(samples[first : first + 333]) for first in range(0, len(samples), 333)]
    assert np.array_equal(np.concatenate([*parts, pieces.finish()]), expected)
    assert len(expected) == pytest.approx(len(samples) * 2 / 3, abs=2)
