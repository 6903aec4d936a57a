"""Pieces cover a segment at little cost; windows follow evenly and never mix up frames."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from encoder_service.messages import FloatArray
from encoder_service.models.campplus import CamPlusPlus
from encoder_service.speaker import SpeakerEmbedder
from encoder_service.speaker_plan import SpeakerConfig, plan_pieces, plan_windows

RATE = 16000
CONFIG = SpeakerConfig()


def frames(length: int) -> int:
    """The network's frames for a piece of `length` samples: 25 ms windows every 10 ms, then half as many."""
    return -(-(1 + (length - 400) // 160) // 2)


@pytest.mark.parametrize("seconds", [0.2, 1.5, 1.6, 2.9, 3.0, 3.1, 4.6, 7.3, 12.0, 59.99])
def test_pieces_cover_the_segment_once(seconds: float) -> None:
    samples = round(seconds * RATE)
    pieces = plan_pieces(samples, CONFIG, RATE)
    assert {piece.length for piece in pieces} <= {24000, 48000}
    assert pieces[0].start == 0
    assert all(piece.start + piece.length >= after.start for piece, after in itertools.pairwise(pieces))
    assert pieces[-1].start + pieces[-1].length == max(samples, 24000)
    assert sum(piece.length for piece in pieces) < samples + 24001


@pytest.mark.parametrize("seconds", [0.2, 1.5, 1.6, 2.9, 3.0, 4.6, 7.3, 59.99])
def test_windows_are_even_and_read_their_own_time(seconds: float) -> None:
    samples = round(seconds * RATE)
    pieces = plan_pieces(samples, CONFIG, RATE)
    counts = [frames(piece.length) for piece in pieces]
    windows = plan_windows(samples, pieces, counts, CONFIG, RATE)
    assert windows.starts[0] == 0 and windows.ends[-1] == pytest.approx(seconds)
    assert np.all(np.diff(windows.starts) <= CONFIG.shift + 0.021)
    assert len(windows.starts) <= 2 + seconds / CONFIG.shift
    # When each frame of each piece was spoken, against when its window says that it was.
    times = np.concatenate(
        [piece.start / RATE + 0.02 * np.arange(count) for piece, count in zip(pieces, counts, strict=True)]
    )
    expected = windows.starts[:, None] + 0.02 * np.arange(windows.frames.shape[1])
    assert np.abs(times[windows.frames] - expected).max() < 0.05


def test_settings_that_make_no_sense() -> None:
    for window, shift, piece in ((1.5, 0.0, 3.0), (1.5, 2.0, 3.0), (4.0, 1.0, 3.0)):
        with pytest.raises(ValueError, match="speaker windows"):
            SpeakerConfig(window=window, shift=shift, piece=piece)


def clip(seconds: float, seed: int) -> FloatArray:
    return np.random.default_rng(seed).normal(0, 0.1, int(seconds * RATE)).astype(np.float32)


def test_voices_of_a_clip_do_not_depend_on_its_company() -> None:
    torch.manual_seed(0)
    embedder = SpeakerEmbedder(CamPlusPlus(), torch.device("cpu"), config=SpeakerConfig(batch=6.0))
    clips = [clip(seconds, seed) for seed, seconds in enumerate((0.4, 5.2, 1.5, 3.3, 8.1))]
    together = embedder.embed(clips)
    for samples, found in zip(clips, together, strict=True):
        (alone,) = embedder.embed([samples])
        assert np.array_equal(alone.starts, found.starts) and np.array_equal(alone.ends, found.ends)
        assert np.allclose(alone.embeddings, found.embeddings, rtol=1e-3, atol=1e-4)
        assert np.isfinite(found.embeddings).all()
