"""Batches through real services with the SDK's client: results are Recognize's, whoever stays connected."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tandem import BatchClient, Client, RecognizeOptions
from tandem.errors import InvalidAudio, NotFound
from tests.support.http import HttpStack
from tests.support.recordings import recording, recording_path

OPTIONS = RecognizeOptions(max_new_tokens=12)


@pytest.fixture
def batches(http_services: HttpStack) -> Iterator[BatchClient]:
    with BatchClient(http_services.grpc) as client:
        yield client


def test_results_are_those_of_recognize(
    http_services: HttpStack, batches: BatchClient, tmp_path: Path
) -> None:
    names = ["english_9s.wav", "mandarin_6s.wav", "dialogue_2spk.flac"]
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"no audio" * 100)
    files = [*(recording_path(name) for name in names), bad, recording("english_9s.wav")]
    batch_id = batches.start(files, OPTIONS)
    percents: list[int] = []
    items = {item.key: item for item in batches.results(batch_id, percents.append)}
    assert sorted(items) == ["bad", "dialogue_2spk", "english_9s", "mandarin_6s", "sample_4"]
    with Client(http_services.grpc) as client:
        for name in names:
            expected = client.recognize(recording_path(name), OPTIONS)
            found = items[Path(name).stem].transcript
            assert found is not None
            assert found.segments == expected.segments
            assert found.duration == expected.duration
    assert isinstance(items["bad"].error, InvalidAudio)
    from_file, from_samples = items["english_9s"].transcript, items["sample_4"].transcript
    assert from_file is not None
    assert from_samples is not None
    assert from_samples.segments == from_file.segments
    assert percents == sorted(percents)
    assert percents[-1] == 100


def test_a_batch_outlives_its_client(http_services: HttpStack) -> None:
    with BatchClient(http_services.grpc) as first:
        batch_id = first.start([recording_path("mandarin_206ms.wav")] * 3, OPTIONS, batch_id="night-run_1")
    assert batch_id == "night-run_1"
    with BatchClient(http_services.grpc) as second:
        assert sorted(item.key for item in second.results(batch_id)) == [
            "mandarin_206ms",
            "mandarin_206ms_1",
            "mandarin_206ms_2",
        ]
        status = second.status(batch_id)
        assert (status.state, status.progress_percent) == ("done", 100)
        assert {item.state for item in status.recordings} == {"succeeded"}
        assert [item.duration for item in status.recordings] == pytest.approx([0.206] * 3, abs=0.001)
        second.delete(batch_id)
        with pytest.raises(NotFound):
            second.status(batch_id)


def test_starting_the_same_batch_again_adds_nothing(batches: BatchClient) -> None:
    short = recording_path("mandarin_206ms.wav")
    assert batches.start(short, OPTIONS, batch_id="twice") == batches.start(short, OPTIONS, batch_id="twice")
    assert len(list(batches.results("twice"))) == 1


def test_cancelled_batches_say_so(batches: BatchClient) -> None:
    batch_id = batches.start([recording_path("meeting_4spk.flac")] * 6, RecognizeOptions())
    assert batches.cancel(batch_id).state == "cancelled"
    assert len(list(batches.results(batch_id))) < 6
    assert batches.status(batch_id).state == "cancelled"


def test_missing_files_are_told_before_anything_is_sent(batches: BatchClient) -> None:
    with pytest.raises(FileNotFoundError, match=r"missing\.wav"):
        batches.start([recording_path("mandarin_206ms.wav"), "missing.wav"], batch_id="never")
    with pytest.raises(NotFound):
        batches.status("never")


def test_samples_that_cannot_be_sent_are_told(batches: BatchClient) -> None:
    with pytest.raises(ValueError, match="shape"):
        batches.start([recording("english_9s.wav")[:0]])
