"""CAM++ gives the published embeddings from the published weights, however its windows are batched."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable
from pathlib import Path

import numpy as np
import pytest
import torch

from encoder_service.frontend import Frontend
from encoder_service.messages import FloatArray
from encoder_service.model_config import FrontendConfig
from encoder_service.models.campplus import CamPlusPlus
from encoder_service.piece_reader import SIZES, cut_fixed
from encoder_service.speaker import WEIGHTS, SpeakerEmbedder, load_speaker_model
from tandem.checkpoint import CheckpointError, read_tensors
from tests.golden.nano import relative_error
from tests.support.recordings import DATA, recording, speaker_weights

_FOLDER = DATA / "golden" / "speaker"
_EXPECTED = json.loads((_FOLDER / "expected.json").read_text(encoding="utf-8"))


def windows() -> list[FloatArray]:
    samples = recording(_EXPECTED["wav"])
    return [samples[round(start * 16000) : round(end * 16000)] for start, end in _EXPECTED["chunks_s"]]


def published() -> FloatArray:
    return np.asarray(np.load(_FOLDER / "expected.npz")["embeddings"], dtype=np.float32)


def embed(model: CamPlusPlus, clips: list[FloatArray]) -> FloatArray:
    """As the published implementation: features of each clip alone, less their own mean."""
    frontend = Frontend(FrontendConfig(window="povey", upscale=False))
    batch = torch.from_numpy(np.stack(clips))
    with torch.inference_mode():
        features, _ = frontend.fbank(batch, torch.full((len(clips),), batch.shape[1]))
        return np.asarray(model(features - features.mean(1, keepdim=True)).numpy())


def cosines(first: FloatArray, second: FloatArray) -> FloatArray:
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return np.asarray((first * second).sum(1) / norms)


@pytest.mark.parametrize("folded", [False, True])
def test_embeddings_are_the_published_ones(folded: bool) -> None:
    model = load_speaker_model(speaker_weights())
    found = embed(model.fold_norms() if folded else model, windows())
    assert found.shape == published().shape == (21, 192)
    for ours, theirs in zip(found, published(), strict=True):
        assert relative_error(ours, theirs) < 1e-3


def test_a_window_alone_is_the_published_chunk() -> None:
    embedder = SpeakerEmbedder(load_speaker_model(speaker_weights()), torch.device("cpu"))
    found = embedder.embed(windows())
    assert all(len(part.embeddings) == 1 for part in found)
    assert cosines(np.concatenate([part.embeddings for part in found]), published()).min() > 0.999


def test_batches_of_fixed_sizes_change_no_voice() -> None:
    """As graphs run them on a GPU: the first step of a shape serves every later batch of that shape."""
    clips = [recording(_EXPECTED["wav"])[16000 * first : 16000 * last] for first, last in ((0, 5), (5, 16))]
    clips += [clips[0][:20000], clips[1][:9000]]
    steps: dict[Hashable, Callable[[], None]] = {}
    plain, fixed = (
        SpeakerEmbedder(load_speaker_model(speaker_weights()), torch.device("cpu"), executor=executor)
        for executor in (None, lambda key, step: steps.setdefault(key, step)())
    )
    for batch in (clips, clips[::-1], clips[2:]):
        for ours, theirs in zip(fixed.embed(batch), plain.embed(batch), strict=True):
            assert relative_error(ours.embeddings, theirs.embeddings) < 1e-4
            assert np.array_equal(ours.starts, theirs.starts)
    assert len(steps) <= 2 * len(SIZES)


@pytest.mark.parametrize("pieces", [0, 1, 2, 3, 5, 17, 24, 33, 45, 64, 160, 1000])
def test_fixed_batches_hold_all_pieces_and_waste_little(pieces: int) -> None:
    batches = list(cut_fixed(pieces))
    assert sum(real for real, _ in batches) == pieces
    assert all(0 < real <= size <= 1.5 * real and size in SIZES for real, size in batches)


def test_half_precision_changes_no_voice() -> None:
    clips = [recording(_EXPECTED["wav"])[16000 : 16000 * 6]]
    full, half = (
        SpeakerEmbedder(load_speaker_model(speaker_weights()), torch.device("cpu"), dtype).embed(clips)[0]
        for dtype in (torch.float32, torch.float16)
    )
    assert np.array_equal(full.starts, half.starts)
    assert 0.999 < cosines(full.embeddings, half.embeddings).min() < 1.0


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"holds no {WEIGHTS}"):
        load_speaker_model(tmp_path)
    tensors = read_tensors(speaker_weights() / WEIGHTS)
    tensors["xvector.dense.linear.weight"] = tensors["xvector.dense.linear.weight"][:128]
    del tensors["head.conv1.weight"]
    torch.save(tensors, tmp_path / WEIGHTS)
    with pytest.raises(CheckpointError, match=r"head\.conv1\.weight.*xvector\.dense\.linear\.weight is"):
        load_speaker_model(tmp_path)
