"""The network against ONNX Runtime, streams together against each alone, and files that are no weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from gateway.vad.fbank import fbank
from gateway.vad.fsmn import FrameScores, FsmnVad
from gateway.vad.network import FsmnNetwork
from gateway.vad.weights import VadModelError, read_weights
from tests.support.recordings import recording, vad_weights


@pytest.fixture(scope="module")
def model() -> FsmnVad:
    return FsmnVad(vad_weights())


def _together(steps: list[FrameScores]) -> FrameScores:
    return FrameScores(
        *(np.concatenate([getattr(s, part) for s in steps]) for part in ("silence", "loudness"))
    )


def test_equals_onnx_runtime() -> None:
    features = fbank(recording("meeting_4spk.flac"))
    weights = read_weights(vad_weights())
    silence, _ = FsmnNetwork(weights).advance(features[None], FsmnNetwork(weights).initial_memory(1))
    stacked = np.concatenate([features[first : len(features) - 4 + first] for first in range(5)], axis=1)
    session = onnxruntime.InferenceSession(vad_weights() / "model.onnx", providers=["CPUExecutionProvider"])
    caches = {f"in_cache{block}": np.zeros((1, 128, 19, 1), np.float32) for block in range(4)}
    inputs = {"speech": (stacked + weights.shift)[None] * weights.scale, **caches}
    (expected, *_) = session.run(["logits"], inputs)
    assert np.abs(silence[0] - expected[0, :, 0]).max() < 1e-5


def test_streams_together_score_like_each_alone(model: FsmnVad) -> None:
    random, audio = np.random.default_rng(1), recording("dialogue_2spk.flac")
    heard = [audio[begin : begin + 48_000 + 7 * begin // 16_000] for begin in range(0, 160_000, 16_000)]
    streams = [model.stream() for _ in heard]
    steps: list[list[FrameScores]] = [[] for _ in heard]
    rest = list(heard)
    while any(map(len, rest)):
        # Most clients send frames of one size; some are silent for a while, some send any size.
        sizes = random.choice([0, 1600, 1600, 1600, 37, 5000], len(heard))
        pushed = model.push([(s, r[:size]) for s, r, size in zip(streams, rest, sizes, strict=True)])
        rest = [r[size:] for r, size in zip(rest, sizes, strict=True)]
        for found, scores in zip(steps, pushed, strict=True):
            found.append(scores)
    for samples, stream, found in zip(heard, streams, steps, strict=True):
        alone = model.stream()
        expected = _together([alone.push(samples), alone.finish()])
        actual = _together([*found, stream.finish()])
        np.testing.assert_allclose(actual.silence, expected.silence, atol=1e-5)
        np.testing.assert_allclose(actual.loudness, expected.loudness, atol=1e-4)


def test_a_stream_cannot_be_named_twice(model: FsmnVad) -> None:
    stream, samples = model.stream(), np.zeros(1600, np.float32)
    with pytest.raises(ValueError, match="twice"):
        model.push([(stream, samples), (stream, samples)])
    assert len(stream.push(samples)) == 6


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(VadModelError, match=r"model\.onnx.*am\.mvn"):
        FsmnVad(tmp_path)


def test_damaged_statistics_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes((vad_weights() / "model.onnx").read_bytes())
    (tmp_path / "am.mvn").write_text("<AddShift> 400 400\n<LearnRateCoef> 0 [ 1 2 3 ]\n")
    with pytest.raises(VadModelError, match="400 shifts"):
        FsmnVad(tmp_path)


@pytest.mark.parametrize("kept", [0, 7, 1000, 300_000, -1])
def test_a_network_that_ends_early_is_refused(tmp_path: Path, kept: int) -> None:
    (tmp_path / "am.mvn").write_bytes((vad_weights() / "am.mvn").read_bytes())
    (tmp_path / "model.onnx").write_bytes((vad_weights() / "model.onnx").read_bytes()[:kept])
    with pytest.raises(VadModelError, match=r"model\.onnx is not an ONNX file"):
        FsmnVad(tmp_path)


@pytest.mark.parametrize("damage", [b"not a network", b"<html>" * 1000])
def test_what_is_not_onnx_is_refused(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "am.mvn").write_bytes((vad_weights() / "am.mvn").read_bytes())
    (tmp_path / "model.onnx").write_bytes(damage)
    with pytest.raises(VadModelError, match=r"model\.onnx is not an ONNX file"):
        FsmnVad(tmp_path)
