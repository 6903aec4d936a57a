"""The streaming SDK with the demo model: the guide's snippet, and text that grows while audio arrives."""

from __future__ import annotations

import contextlib
import io
import os
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from tandem import FunASRNanoStreamingVLLM
from tandem.errors import InvalidAudio
from tandem.live_inputs import recording_pcm
from tests.support.guide import run_snippet

ROOT = Path(__file__).parents[2]
MEETING = ROOT / "examples" / "meeting.flac"
CHUNK = 11_520


def speech(seconds: float) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    return recording_pcm(MEETING.read_bytes(), "meeting")[: round(seconds * 16_000)]


@dataclass(frozen=True, slots=True)
class Guide:
    """What the guide's reader has in the end: the engine, still open, and the output."""

    engine: FunASRNanoStreamingVLLM
    output: str


@pytest.fixture(scope="module")
def guide(tmp_path_factory: pytest.TempPathFactory, derived_files: None) -> Iterator[Guide]:
    """The snippet over nine seconds of a meeting."""
    folder = tmp_path_factory.mktemp("guide")
    soundfile.write(folder / "audio.wav", speech(9.0), 16_000)
    output = io.StringIO()
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(output),
        pytest.MonkeyPatch.context() as environment,
    ):
        environment.setenv("CUDA_VISIBLE_DEVICES", "")
        names = run_snippet("sdk_streaming.py", folder, ROOT / "models" / "demo")
    with names["engine"] as engine:
        yield Guide(engine, output.getvalue())


@pytest.fixture
def engine(guide: Guide) -> FunASRNanoStreamingVLLM:
    return guide.engine


def check(results: list[dict[str, Any]]) -> None:
    """What holds for every input."""
    assert [result["chunk_idx"] for result in results] == list(range(1, len(results) + 1))
    assert [result["is_final"] for result in results] == [False] * (len(results) - 1) + [True]
    fixed = [result["fixed_text"] for result in results]
    assert all(later.startswith(sooner) for sooner, later in pairwise(fixed))
    assert all(result["text"].startswith(result["fixed_text"]) for result in results)
    assert results[-1]["text"] == fixed[-1]


def test_the_guides_snippet_prints_confirmed_text_and_then_the_final(guide: Guide) -> None:
    *chunks, last = guide.output.splitlines()
    assert len(chunks) == 12
    matches = [re.fullmatch(r"\[(\d+)ms\] Confirmed: (.*)", line) for line in chunks]
    assert [int(match[1]) for match in matches if match] == [720 * n for n in range(1, 13)]
    confirmed = [match[2] for match in matches if match]
    assert confirmed[-1]
    assert last.startswith("Final: ")
    assert last.removeprefix("Final: ").startswith(confirmed[-1])


def test_english_is_confirmed_word_by_word_before_the_speaker_has_finished(
    engine: FunASRNanoStreamingVLLM,
) -> None:
    results = list(engine.streaming_generate(speech(9.0), language="English"))
    check(results)
    final = results[-1]["text"]
    words = set(re.findall(r"\w+", final.lower()))
    assert {"morning", "everyone", "joining"} <= words
    grown = [result["fixed_text"] for result in results[:-1] if result["fixed_text"]]
    assert len(set(grown)) >= 4
    for text in grown:
        assert final.startswith(text)
        assert not final[len(text) :][:1].isalnum(), "confirmed text ends inside a word"


def test_results_come_before_the_next_chunk_is_asked_for(engine: FunASRNanoStreamingVLLM) -> None:
    samples, given = speech(6.0), 0

    def microphone() -> Iterator[bytes]:
        nonlocal given
        for first in range(0, len(samples), 1600):
            given += 1600
            yield samples[first : first + 1600].tobytes()

    seen = []
    for result in engine.streaming_generate(microphone()):
        seen.append(result)
        if not result["is_final"]:
            assert given == -(-len(seen) * CHUNK // 1600) * 1600
    check(seen)
    assert [result["text"] for result in seen] == [
        result["text"] for result in engine.streaming_generate(samples)
    ]


def test_every_kind_of_input_gives_the_same_text(engine: FunASRNanoStreamingVLLM, tmp_path: Path) -> None:
    samples = speech(4.0)
    path = tmp_path / "in.wav"
    soundfile.write(path, samples, 16_000)
    floats = samples.astype(np.float32) / 32768
    inputs = [
        path,
        str(path),
        path.read_bytes(),
        samples,
        floats,
        torch.from_numpy(floats),
        [floats, floats[:0]],
    ]
    texts = {[*engine.streaming_generate(audio)][-1]["text"] for audio in inputs}
    assert len(texts) == 1
    with pytest.raises(InvalidAudio, match="the recording"):
        next(engine.streaming_generate(b"no audio" * 100))
    with pytest.raises(TypeError, match="a chunk is"):
        list(engine.streaming_generate([3]))


def test_chunks_and_rollback_are_as_asked(engine: FunASRNanoStreamingVLLM) -> None:
    other = FunASRNanoStreamingVLLM.from_pretrained(chunk_ms=1000, rollback_chars=1000, server=engine.server)
    results = list(other.streaming_generate(speech(5.0)))
    check(results)
    assert [result["audio_duration_ms"] for result in results] == [1000, 2000, 3000, 4000, 5000, 5000]
    assert not any(result["fixed_text"] for result in results[:-1] if result["audio_duration_ms"] < 3000)
    assert [*other.streaming_generate([])][-1]["text"] == ""
    with pytest.raises(ValueError, match="chunk_ms 0"):
        FunASRNanoStreamingVLLM.from_pretrained(chunk_ms=0, server=engine.server)


def test_closing_the_generator_leaves_nothing_behind(engine: FunASRNanoStreamingVLLM) -> None:
    def held() -> tuple[int, int]:
        return threading.active_count(), len(os.listdir("/proc/self/fd"))

    threads, descriptors = held()
    for _ in range(5):
        results = engine.streaming_generate(speech(6.0))
        next(results)
        results.close()
    give_up = time.monotonic() + 20
    while held() > (threads, descriptors + 2) and time.monotonic() < give_up:
        time.sleep(0.05)
    assert held()[0] <= threads
    assert held()[1] <= descriptors + 2
