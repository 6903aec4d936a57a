"""OpenAI's routes with the `openai` package."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types.audio import TranscriptionDiarized, TranscriptionVerbose

from tandem import Client, RecognizeOptions
from tests.support.http import HttpStack

SHORT = {"max_new_tokens": 8}


@pytest.fixture
def client(http_services: HttpStack) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{http_services.url}/v1", api_key="none", max_retries=0) as connected:
        yield connected


def timestamp(seconds: float, decimal: str) -> str:
    """`hh:mm:ss,mmm` of a time within the first hour."""
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"00:{minutes:02d}:{rest // 1000:02d}{decimal}{rest % 1000:03d}"


def create(client: openai.OpenAI, file: Path, **fields: Any) -> Any:
    return client.audio.transcriptions.create(
        model=fields.pop("model", "fun-asr-nano"), file=file, extra_body=SHORT, **fields
    )


@pytest.fixture(scope="module")
def expected(http_services: HttpStack, dialogue: Path) -> Any:
    with Client(http_services.grpc) as connected:
        return connected.recognize(dialogue, RecognizeOptions(max_new_tokens=8), timeout=60)


def test_json_and_text_hold_the_transcript(client: openai.OpenAI, dialogue: Path, expected: Any) -> None:
    assert create(client, dialogue).text == expected.text
    assert create(client, dialogue, response_format="text", model="whisper-1") == expected.text + "\n"


def test_verbose_json_has_openais_shape_and_the_guides_words(
    client: openai.OpenAI, dialogue: Path, expected: Any
) -> None:
    result = create(client, dialogue, response_format="verbose_json")
    assert isinstance(result, TranscriptionVerbose)
    assert result.language is None
    assert result.duration == pytest.approx(expected.duration, abs=0.001)
    assert result.segments is not None
    assert [(s.id, s.text, s.start, s.end) for s in result.segments] == [
        (i, s.text, round(s.start, 3), round(s.end, 3)) for i, s in enumerate(expected.segments)
    ]
    words = [(w.text, round(w.start, 3), round(w.end, 3)) for s in expected.segments for w in s.words]
    assert [(w.word, w.start, w.end) for w in result.words or ()] == words
    nested = [w for s in result.segments for w in (s.model_extra or {}).get("words", ())]
    assert [(w["word"], w["start"], w["end"]) for w in nested] == words


def test_granularity_segment_leaves_words_out(client: openai.OpenAI, english: Path) -> None:
    result = create(
        client,
        english,
        response_format="verbose_json",
        timestamp_granularities=["segment"],
        language="English",
    )
    assert result.words is None
    assert "words" not in result.segments[0].model_extra
    assert result.language == "English"


def test_granularities_may_come_without_brackets(http: httpx.Client, english: Path) -> None:
    fields = {"response_format": "verbose_json", "timestamp_granularities": "minute", **SHORT}
    answer = http.post("/v1/audio/transcriptions", files={"file": english.open("rb")}, data=fields)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].startswith("timestamp_granularities")


def test_subtitles_begin_and_end_with_the_speech(
    client: openai.OpenAI, dialogue: Path, expected: Any
) -> None:
    srt = create(client, dialogue, response_format="srt")
    first, last = expected.segments[0].words[0], expected.segments[-1].words[-1]
    assert srt.startswith(f"1\n{timestamp(first.start, ',')} --> ")
    assert srt.rstrip().splitlines()[-2].endswith(timestamp(last.end, ","))
    assert srt.count(" --> ") >= len(expected.segments)
    vtt = create(client, dialogue, response_format="vtt")
    assert vtt.startswith(f"WEBVTT\n\n{timestamp(first.start, '.')} --> ")
    assert vtt.count(" --> ") == srt.count(" --> ")


def test_a_stream_gives_every_segment_in_order_and_then_the_whole(
    client: openai.OpenAI, dialogue: Path, expected: Any
) -> None:
    events = list(create(client, dialogue, stream=True))
    deltas = [event for event in events if event.type == "transcript.text.delta"]
    assert len(deltas) == len([segment for segment in expected.segments if segment.text])
    assert events[-1].type == "transcript.text.done"
    assert "".join(event.delta for event in deltas) == events[-1].text == expected.text


def test_a_failing_stream_fails_with_a_status(client: openai.OpenAI, tmp_path: Path) -> None:
    noise = tmp_path / "noise.wav"
    noise.write_bytes(b"not audio at all" * 100)
    with pytest.raises(openai.BadRequestError) as caught:
        create(client, noise, stream=True)
    assert caught.value.code == "invalid_audio"


def test_prompt_terms_and_keywords_are_hotwords(
    client: openai.OpenAI, http_services: HttpStack, english: Path
) -> None:
    options = RecognizeOptions(hotwords=("北京", "开放时间"), max_new_tokens=8)
    with Client(http_services.grpc) as connected:
        text = connected.recognize(english, options, timeout=60).text
    assert create(client, english, prompt="北京, 开放时间", temperature=0.4).text == text
    assert create(client, english, keywords=["北京", "开放时间"]).text == text
    plain = create(client, english).text
    assert plain != text
    assert create(client, english, prompt="We talked about this before. Then we left.").text == plain


def test_server_vad_sets_the_pause_that_ends_a_segment(client: openai.OpenAI, dialogue: Path) -> None:
    def segments(silence_ms: int) -> int:
        strategy = {"type": "server_vad", "silence_duration_ms": silence_ms}
        result = create(client, dialogue, response_format="verbose_json", chunking_strategy=strategy)
        return len(result.segments)

    assert segments(200) > segments(2000)


def test_diarized_json_names_every_speaker(client: openai.OpenAI, dialogue: Path) -> None:
    result = create(client, dialogue, response_format="diarized_json", chunking_strategy="auto")
    assert isinstance(result, TranscriptionDiarized)
    assert [segment.id for segment in result.segments] == [f"seg_{i}" for i in range(len(result.segments))]
    assert {segment.speaker for segment in result.segments} <= set("ABCDEFGHIJ")


def test_models_lists_the_served_one(client: openai.OpenAI) -> None:
    (model,) = client.models.list().data
    assert model.id == "nano"
    assert client.models.retrieve("nano").owned_by == "tandem"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("whisper-1")
    assert "whisper-1" in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": "pdf"}, "response_format"),
        ({"response_format": "srt", "stream": True}, "response_format"),
        ({"temperature": 3.0}, "temperature"),
        ({"include": ["logprobs"]}, "include"),
        ({"chunking_strategy": {"type": "none"}}, "chunking_strategy"),
    ],
)
def test_bad_fields_are_errors_in_openais_form(
    client: openai.OpenAI, english: Path, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        create(client, english, **fields)
    assert (caught.value.type, caught.value.param) == ("invalid_request_error", param)
    assert caught.value.request_id
