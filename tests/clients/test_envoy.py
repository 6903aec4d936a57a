"""The chart's Envoy in front of the gateway: gRPC of several languages, live audio, gRPC-Web from a page."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tandem import Client, LiveStream, StreamOptions
from tandem.asr.v1 import asr_pb2 as pb
from tandem.launcher import Stack, is_ready
from tandem.live_events import Ended, Final
from tandem.results import Transcript
from tests.clients import contract, programs
from tests.clients.programs import MEETING
from tests.support.envoy import envoy as chart_envoy

PAGE = "https://page.example"


@pytest.fixture(scope="module")
def envoy(services: Stack) -> Iterator[str]:
    with chart_envoy(services.address, [PAGE]) as started:
        yield started.address


def test_recordings_and_typed_errors_pass(envoy: str, heard: Transcript, tmp_path: Path) -> None:
    with Client(envoy) as client:
        assert client.recognize(MEETING, timeout=120).text == heard.text
    for language in programs.LANGUAGES:
        contract.bad_audio_is_a_typed_error(programs.example(language, "recognize"), envoy, tmp_path)


def test_live_audio_and_its_lost_connections(envoy: str, heard_live: list[Final]) -> None:
    contract.lost_connections_lose_no_word(programs.example("go", "live"), envoy, heard_live)


async def test_a_pod_that_ends_lets_running_calls_finish(services: Stack) -> None:
    samples = programs.speech()
    with chart_envoy(services.address, drain_seconds=3) as ending:
        async with LiveStream(ending.address, StreamOptions(interim=False)) as live:
            await live.send(samples[: len(samples) // 2])
            stopping = await asyncio.create_subprocess_exec(*ending.pre_stop)
            await live.send(samples[len(samples) // 2 :])
            live.end()
            events = [event async for event in live]
        assert await stopping.wait() == 0
        assert isinstance(events[-1], Ended)
        assert any(isinstance(event, Final) for event in events)
        # Envoy's own drain and the hook's wait take as long, but begin at different times.
        async with asyncio.timeout(5):
            while is_ready(ending.address):  # until new calls go elsewhere
                await asyncio.sleep(0.05)


def test_a_page_calls_with_grpc_web(envoy: str) -> None:
    method = f"http://{envoy}/tandem.asr.v1.AsrService/GetCapabilities"
    preflight = httpx.options(
        method, headers={"origin": PAGE, "access-control-request-method": "POST"}, timeout=10
    )
    assert preflight.headers["access-control-allow-origin"] == PAGE
    message = pb.GetCapabilitiesRequest().SerializeToString()
    answer = httpx.post(
        method,
        content=struct.pack(">BI", 0, len(message)) + message,
        headers={"content-type": "application/grpc-web+proto", "x-grpc-web": "1", "origin": PAGE},
        timeout=10,
    )
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/grpc-web+proto"
    flags, length = struct.unpack(">BI", answer.content[:5])
    assert flags == 0
    assert pb.GetCapabilitiesResponse.FromString(answer.content[5 : 5 + length]).streaming
    assert b"grpc-status:0" in answer.content[5 + length :].replace(b" ", b"")
