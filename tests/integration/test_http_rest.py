"""POST /asr with httpx: the guide's fields, ours beside them, and the same answer as gRPC."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from tandem import Client, RecognizeOptions, Transcript
from tests.support.http import HttpStack

SHORT = {"max_new_tokens": "8"}


def post(http: httpx.Client, file: Path, **fields: str) -> dict[str, Any]:
    answer = http.post("/asr", files={"file": file.open("rb")}, data=fields)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def over_grpc(services: HttpStack, file: Path, options: RecognizeOptions) -> Transcript:
    with Client(services.grpc) as client:
        return client.recognize(file, options, timeout=60)


def test_the_answer_has_the_fields_of_the_guide_and_the_values_of_grpc(
    http: httpx.Client, http_services: HttpStack, dialogue: Path
) -> None:
    body = post(http, dialogue, **SHORT)
    expected = over_grpc(http_services, dialogue, RecognizeOptions(max_new_tokens=8))
    assert body["text"] == expected.text
    assert len(body["segments"]) > 3
    assert [(s["text"], s["start"], s["end"]) for s in body["segments"]] == [
        (s.text, round(s.start, 3), round(s.end, 3)) for s in expected.segments
    ]
    assert body["duration"] == pytest.approx(62.911, abs=0.001)
    assert body["rtf"] == pytest.approx(body["processing_time"] / body["duration"], abs=1e-4)
    extra = set(body) - {"text", "segments", "duration", "processing_time", "rtf"}
    assert extra == {"timestamp_source"}


def test_words_are_those_of_grpc_and_left_out_without_timestamp(
    http: httpx.Client, http_services: HttpStack, english: Path
) -> None:
    with_times = post(http, english, **SHORT)
    expected = over_grpc(http_services, english, RecognizeOptions(max_new_tokens=8))
    assert with_times["timestamp_source"] == expected.timestamp_source.value
    words = [word for segment in with_times["segments"] for word in segment.get("words", ())]
    assert words == [
        {"word": w.text, "start": round(w.start, 3), "end": round(w.end, 3)}
        for segment in expected.segments
        for w in segment.words
    ]
    without = post(http, english, timestamp="false", **SHORT)
    assert without["timestamp_source"] == "none"
    assert all("words" not in segment for segment in without["segments"])


def test_language_and_hotwords_reach_the_prompt(
    http: httpx.Client, http_services: HttpStack, english: Path
) -> None:
    asked = post(http, english, language="中文", hotwords="开放时间， 北京,北京", **SHORT)
    options = RecognizeOptions(language="中文", hotwords=("开放时间", "北京"), max_new_tokens=8)
    assert asked["text"] == over_grpc(http_services, english, options).text
    assert asked["text"] != post(http, english, **SHORT)["text"]


def test_a_silence_schedule_cuts_where_it_says(http: httpx.Client, dialogue: Path) -> None:
    fine = post(http, dialogue, silence_schedule="[[5000, 300], [null, 200]]", **SHORT)
    coarse = post(http, dialogue, silence_schedule="[[20000, 3000], [null, 1000]]", **SHORT)
    assert len(fine["segments"]) > len(coarse["segments"])
    fixed = post(http, dialogue, dynamic_silence="false", fixed_silence="0.2", **SHORT)
    assert len(fixed["segments"]) > len(coarse["segments"])


def test_details_add_timing_and_the_request_id(http: httpx.Client, english: Path) -> None:
    answer = http.post(
        "/asr",
        files={"file": english.open("rb")},
        data={"details": "true", **SHORT},
        headers={"X-Request-ID": "my-request.1"},
    )
    assert answer.headers["x-request-id"] == "my-request.1"
    assert answer.json()["request_id"] == "my-request.1"
    assert answer.json()["timing"]["decode"] > 0


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"spk": "perhaps"}, "spk"),
        ({"max_segment": "0.1"}, "max_segment"),
        ({"silence_schedule": "[[5000, 300]]"}, "silence_schedule"),
        ({"silence_schedule": "soon"}, "silence_schedule"),
        ({"silence_schedule": "[" * 100_000}, "silence_schedule"),
        ({"silence_schedule": f"[[{'9' * 400}, 300], [null, 300]]"}, "silence_schedule"),
        ({"num_speakers": "0"}, "num_speakers"),
        ({"num_speakers": "1" + "0" * 30}, "num_speakers"),
        ({"max_new_tokens": "1" + "0" * 30}, "max_new_tokens"),
        ({"language": "<|im_" * 13}, "language"),
        ({"hotwords": ",".join(map(str, range(2001)))}, "hotwords"),
        ({"hotwords": "w" * 16_385}, "hotwords"),
    ],
)
def test_a_bad_field_is_named(http: httpx.Client, english: Path, fields: dict[str, str], field: str) -> None:
    answer = http.post("/asr", files={"file": english.open("rb")}, data=fields)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["reason"] == "INVALID_REQUEST"
    assert [violation["field"] for violation in error["violations"]] == [field]
    assert error["request_id"] == answer.headers["x-request-id"]
