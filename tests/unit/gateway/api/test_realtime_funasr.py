"""The real-time WebSocket's messages, one by one, over sessions whose decodes take no time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gateway.api.realtime_defaults import RealtimeDefaults, realtime_defaults
from gateway.api.realtime_funasr import Connection
from gateway.config import parse
from tandem.errors import InternalError
from tests.unit.gateway.session.instant import InstantService
from tests.unit.gateway.session.simulation import Script

TWO_SENTENCES = Script().pause(0.5).say(4).pause(2.5).say(3).pause(0.5)


class Client:
    """Speaks to a connection without a network."""

    def __init__(self, defaults: RealtimeDefaults | None = None) -> None:
        self.server = InstantService()
        self.closed: tuple[int, str] | None = None
        self._sent: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        self._received: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._connection = Connection(self, self.server.service, defaults or RealtimeDefaults())

    async def __aiter__(self) -> AsyncIterator[str | bytes]:
        while (message := await self._sent.get()) is not None:
            yield message
            for _ in range(3):  # decodes have their turn
                await asyncio.sleep(0)

    async def send(self, message: str) -> None:
        self._received.put_nowait(json.loads(message))

    async def close(self, code: int, reason: str) -> None:
        self.closed = (code, reason)

    async def __aenter__(self) -> Client:
        self._running = asyncio.create_task(self._connection.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._sent.put_nowait(None)
        await self._running

    async def answer(self) -> dict[str, Any]:
        return await asyncio.wait_for(self._received.get(), 10)

    def say(self, command: str) -> None:
        self._sent.put_nowait(command)

    async def tell(self, command: str) -> dict[str, Any]:
        """The next message after a command."""
        self.say(command)
        return await self.answer()

    def speak(self, script: Script) -> None:
        for first in range(0, len(script.audio), 1600):
            self._sent.put_nowait(script.audio[first : first + 1600].tobytes())

    async def until(self, key: str, value: object) -> list[dict[str, Any]]:
        messages = [await self.answer()]
        while messages[-1].get(key) != value:
            messages.append(await self.answer())
        return messages


async def test_results_have_the_keys_types_and_units_of_the_published_server() -> None:
    async with Client() as client:
        assert await client.tell("STOP") == {"event": "stopped"}
        client.speak(Script().say(2))
        assert await client.tell(" start ") == {"event": "started"}
        client.speak(TWO_SENTENCES)
        client.say("STOP")
        *results, stopped = await client.until("event", "stopped")
    length = round(len(TWO_SENTENCES.audio) / 16)
    assert stopped == {"event": "stopped"}
    for result in results:
        assert list(result) == ["sentences", "partial", "partial_start_ms", "duration_ms", "is_final"]
        assert {type(result[key]) for key in ("partial_start_ms", "duration_ms")} == {int}
        assert all(list(sentence) == ["text", "start", "end"] for sentence in result["sentences"])
    running = next(result for result in results if result["partial"])
    assert running["sentences"] == []
    assert 200 <= running["partial_start_ms"] <= 500
    assert [result["is_final"] for result in results] == [False] * (len(results) - 1) + [True]
    sentences = results[-1].pop("sentences")
    assert results[-1] == {"partial": "", "partial_start_ms": 0, "duration_ms": length, "is_final": True}
    assert [sentence["text"] for sentence in sentences] == ["w1 w2 w3 w4", "w5 w6 w7"]
    first, second = sentences
    assert 200 <= first["start"] <= 500
    assert 1820 <= first["end"] <= 2000 < 4060 <= second["start"] <= 4360
    assert 5340 <= second["end"] <= length


async def test_what_the_operator_sets_holds_until_the_client_says_otherwise(tmp_path: Path) -> None:
    words, rules = tmp_path / "words", tmp_path / "rules"
    words.write_text("Tandem\n\n 朴素 \n", encoding="utf-8")
    rules.write_text("# wrong=>right\nw1=>one\n", encoding="utf-8")
    flags = ["--language", "中文", "--hotword-file", str(words), "--postprocess-hotword-file", str(rules)]
    texts = []
    async with Client(realtime_defaults(parse([*flags, "--enable-spk"]))) as client:
        for commands in ([], ["LANGUAGE:", "HOTWORDS:a, b", "POSTPROCESS_HOTWORDS:w2->two, w1"], []):
            for command in commands:
                await client.tell(command)
            await client.tell("START")
            client.speak(Script().say(2).pause(0.5))
            client.say("STOP")
            texts.append((await client.until("is_final", True))[-1]["sentences"][0]["text"])
            await client.until("event", "stopped")
    asked = dict.fromkeys((options.language, options.hotwords) for options in client.server.backend.asked)
    assert list(asked) == [("中文", ("Tandem", "朴素")), (None, ("a", "b"))]
    assert texts == ["one w2", "w1 two", "w1 two"]


@pytest.mark.parametrize("command", ["HOTWORDS:", "LANGUAGE:", "POSTPROCESS_HOTWORDS:"])
async def test_more_than_fits_is_answered_and_the_session_goes_on(command: str) -> None:
    async with Client() as client:
        await client.tell("HOTWORDS:a")
        await client.tell("START")
        refused = await client.tell(command + "w" * 16_385)
        assert refused["event"] == "error" and "at most" in refused["error"]
        client.speak(Script().say(2).pause(0.5))
        client.say("STOP")
        assert (await client.until("is_final", True))[-1]["sentences"]
        await client.until("event", "stopped")
    assert {options.hotwords for options in client.server.backend.asked} == {("a",)}


async def test_a_hotword_file_with_more_than_fits_is_refused_at_the_start(tmp_path: Path) -> None:
    words = tmp_path / "words"
    words.write_text("\n".join(map(str, range(2001))), encoding="utf-8")
    with pytest.raises(ValueError, match=r"words: .*at most 2000"):
        realtime_defaults(parse(["--hotword-file", str(words)]))


async def test_a_hotword_file_that_is_not_there_is_no_empty_one() -> None:
    with pytest.raises(FileNotFoundError):
        realtime_defaults(parse(["--hotword-file", "/nowhere"]))


async def test_speakers_of_the_whole_session_come_with_its_last_message() -> None:
    async with Client() as client:
        assert await client.tell("SPK:on") == {"event": "spk_set", "spk": True}
        await client.tell("START")
        client.speak(Script().say(3).pause(2.5).say(3).pause(2.5).say(3).pause(2.5).say(3).pause(2.5))
        client.say("STOP")
        *results, _stopped = await client.until("event", "stopped")
    told = [[sentence["spk"] for sentence in result["sentences"]] for result in results]
    assert [spk for before, spk in pairwise([[], *told]) if spk != before] == [
        [0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 0, 1],
    ]  # fmt: skip
    assert results[-1]["is_final"]


async def test_stop_has_a_final_only_of_what_was_not_committed() -> None:
    async with Client(RealtimeDefaults(client_endpoint=True)) as client:
        await client.tell("START")
        client.speak(Script().say(3))
        client.say("COMMIT")
        (final,) = (await client.until("is_final", True))[-1]["sentences"]
        assert final["text"] == "w1 w2 w3"
        assert await client.tell("STOP") == {"event": "stopped"}
        await client.tell("START")
        client.speak(Script().say(2))
        client.say("STOP")
        *_, final, _stopped = await client.until("event", "stopped")
        assert (final["is_final"], final["sentences"][0]["text"]) == (True, "w1 w2")


async def test_commits_are_answered_in_order_those_without_audio_too() -> None:
    async with Client(RealtimeDefaults(client_endpoint=True)) as client:
        await client.tell("START")
        client.say("COMMIT")
        client.speak(Script().say(3))
        for _ in range(3):
            client.say("COMMIT")
        client.speak(Script().say(2))
        client.say("COMMIT")
        client.say("STOP")
        answers = [message for message in await client.until("event", "stopped") if message.get("is_final")]
    texts = [[sentence["text"] for sentence in answer["sentences"]] for answer in answers]
    assert texts == [[], ["w1 w2 w3"], [], [], ["w1 w2"]]
    assert [answer["partial"] for answer in answers] == [""] * 5


@pytest.mark.parametrize(("after", "reason"), [(61.0, "idle"), (3601.0, "max_duration")])
async def test_a_session_that_the_server_ends_says_why(after: float, reason: str) -> None:
    async with Client() as client:
        await client.tell("START")
        client.server.clock.now = after
        client.server.sessions.tick()
        messages = await client.until("event", "stopped")
        while client.closed is None:
            await asyncio.sleep(0)
    assert messages[-1] == {"event": "stopped", "reason": reason}
    assert client.closed == (1001, reason)


async def test_a_sentence_that_cannot_be_decoded_ends_the_session_with_an_error() -> None:
    async with Client() as client:
        await client.tell("START")
        client.server.backend.error = InternalError("the decoder is gone")
        client.speak(Script().say(3).pause(2.5))
        *_, error = await client.until("event", "error")
        while client.closed is None:
            await asyncio.sleep(0)
    assert error == {"event": "error", "error": "the decoder is gone"}
    assert client.closed == (1011, "recognition failed")


async def test_a_server_that_is_not_ready_answers_start_with_an_error() -> None:
    async with Client() as client:
        await client.server.sessions.drain(0.0)
        assert await client.tell("START") == {"event": "error", "error": "0 live sessions are open"}
        assert await client.tell("PING") == {"event": "pong"}
