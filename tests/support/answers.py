"""One recording through each protocol of the gateway, in one form that can be compared."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
from websockets.asyncio.client import connect

from gateway.api.openai_format import speaker_letter
from gateway.audio.decode import decode
from tandem import AsyncClient, AutoModelVLLM, Client, RecognizeOptions, Transcript
from tests.support.http import HttpStack

TIMEOUT = 300.0


@dataclass(frozen=True, slots=True)
class Word:
    """Times in milliseconds."""

    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Segment:
    """Times in milliseconds; the speaker by number."""

    text: str
    start: int
    end: int
    speaker: int | None
    words: tuple[Word, ...]


Answer = tuple[Segment, ...]
Protocol = Callable[[HttpStack, Path, bool], Answer]


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _number(speaker: str | None) -> int | None:
    return None if speaker is None else int(speaker.removeprefix("SPK"))


def _of_transcript(transcript: Transcript) -> Answer:
    return tuple(
        Segment(
            segment.text,
            _ms(segment.start),
            _ms(segment.end),
            _number(segment.speaker),
            tuple(Word(word.text, _ms(word.start), _ms(word.end)) for word in segment.words),
        )
        for segment in transcript.segments
    )


def _of_json(segments: list[dict[str, Any]]) -> Answer:
    return tuple(
        Segment(
            segment["text"],
            _ms(segment["start"]),
            _ms(segment["end"]),
            _number(segment.get("speaker")),
            tuple(Word(w["word"], _ms(w["start"]), _ms(w["end"])) for w in segment.get("words", ())),
        )
        for segment in segments
    )


def grpc_blocking(services: HttpStack, file: Path, speakers: bool) -> Answer:
    with Client(services.grpc) as client:
        options = RecognizeOptions(speakers=speakers)
        return _of_transcript(client.recognize(file, options, timeout=TIMEOUT))


def grpc_async(services: HttpStack, file: Path, speakers: bool) -> Answer:
    async def call() -> Transcript:
        async with AsyncClient(services.grpc) as client:
            return await client.recognize(file, RecognizeOptions(speakers=speakers), timeout=TIMEOUT)

    return _of_transcript(asyncio.run(call()))


def rest(services: HttpStack, file: Path, speakers: bool) -> Answer:
    form = {"spk": str(speakers).lower()}
    answer = httpx.post(f"{services.url}/asr", files={"file": file.read_bytes()}, data=form, timeout=TIMEOUT)
    answer.raise_for_status()
    return _of_json(answer.json()["segments"])


def openai_verbose(services: HttpStack, file: Path, speakers: bool) -> Answer:
    with openai.OpenAI(base_url=f"{services.url}/v1", api_key="none", timeout=TIMEOUT) as client:
        result = client.audio.transcriptions.create(
            model="fun-asr-nano", file=file, response_format="verbose_json", extra_body={"spk": speakers}
        )
    return _of_json([segment.to_dict() for segment in result.segments or ()])


def websocket(services: HttpStack, file: Path, speakers: bool) -> Answer:
    pcm = np.round(decode(file.read_bytes()).channel() * 32768).astype("<i2").tobytes()

    async def call() -> list[dict[str, Any]]:
        async with connect(f"ws://{services.address}/ws") as ws:
            for message in ("START", f"SPK:{str(speakers).lower()}", pcm, "STOP"):
                await ws.send(message)
            async with asyncio.timeout(TIMEOUT):
                while not (answer := json.loads(await ws.recv())).get("is_final"):
                    assert answer.get("event") != "error", answer
        sentences: list[dict[str, Any]] = answer["sentences"]
        return sentences

    return tuple(
        Segment(
            sentence["text"],
            sentence["start"],
            sentence["end"],
            sentence.get("spk"),
            tuple(Word(w["word"], w["start"], w["end"]) for w in sentence.get("words", ())),
        )
        for sentence in asyncio.run(call())
    )


def openai_texts(services: HttpStack, file: Path) -> dict[str, str]:
    """The text alone, by every OpenAI format that has no more than that."""
    with openai.OpenAI(base_url=f"{services.url}/v1", api_key="none", timeout=TIMEOUT) as client:
        create = client.audio.transcriptions.create
        stream = create(model="x", file=file, stream=True)
        deltas = [event.delta for event in stream if event.type == "transcript.text.delta"]
        return {
            "json": create(model="x", file=file).text,
            "text": create(model="x", file=file, response_format="text").removesuffix("\n"),
            "stream": "".join(deltas),
        }


def openai_speakers(services: HttpStack, file: Path) -> list[tuple[str, str, int, int]]:
    """Speaker, text and times out of diarized_json."""
    with openai.OpenAI(base_url=f"{services.url}/v1", api_key="none", timeout=TIMEOUT) as client:
        result = client.audio.transcriptions.create(model="x", file=file, response_format="diarized_json")
    return [(s.speaker, s.text, _ms(s.start), _ms(s.end)) for s in result.segments]


def with_letters(answer: Answer) -> list[tuple[str, str, int, int]]:
    """What `openai_speakers` should give for an answer."""
    return [(speaker_letter(f"SPK{s.speaker or 0}"), s.text, s.start, s.end) for s in answer]


def sdk(services: HttpStack, file: Path, speakers: bool) -> Answer:
    """The dicts of generate(); its words stand in one list, so they are given back to their segments."""
    with AutoModelVLLM(server=services.grpc) as model:
        (result,) = model.generate(str(file), spk=speakers, sentence_info=True)
    words = iter(result.get("timestamps", ()))
    answer = []
    for sentence in result["sentence_info"]:
        own = [next(words) for _ in sentence["timestamp"]]
        times = [[_ms(word["start_time"]), _ms(word["end_time"])] for word in own]
        assert times == sentence["timestamp"]
        told = tuple(Word(word["token"], start, end) for word, (start, end) in zip(own, times, strict=True))
        answer.append(
            Segment(sentence["text"], sentence["start"], sentence["end"], sentence.get("spk"), told)
        )
    assert not list(words)
    return tuple(answer)


PROTOCOLS: dict[str, Protocol] = {
    "grpc": grpc_blocking,
    "grpc async": grpc_async,
    "rest": rest,
    "openai": openai_verbose,
    "websocket": websocket,
    "sdk": sdk,
}
