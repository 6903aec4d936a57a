"""The numpy filterbank against Kaldi's own code, and streaming against whole."""

from __future__ import annotations

import kaldi_native_fbank
import numpy as np
import pytest

from gateway.vad.fbank import FRAME_SHIFT, fbank, num_frames
from tests.support.recordings import recording


def test_equals_kaldi() -> None:
    samples = recording("dialogue_2spk.flac")
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.window_type = "hamming"
    options.mel_opts.num_bins = 80
    options.energy_floor = 0
    kaldi = kaldi_native_fbank.OnlineFbank(options)
    kaldi.accept_waveform(16000, (samples * 32768).tolist())
    kaldi.input_finished()
    expected = np.stack([kaldi.get_frame(i) for i in range(kaldi.num_frames_ready)])
    actual = fbank(samples)
    assert actual.shape == expected.shape == (6289, 80)
    assert np.abs(actual - expected).max() < 2e-3


def test_frames_of_a_stream_go_on_where_they_ended() -> None:
    samples = recording("mandarin_6s.wav")
    expected, half = fbank(samples), len(samples) // 2
    first = fbank(samples[:half])
    rest = fbank(samples[len(first) * FRAME_SHIFT :])
    np.testing.assert_allclose(np.concatenate([first, rest]), expected, atol=1e-5)


def test_streams_side_by_side_are_like_each_alone() -> None:
    samples = recording("mandarin_6s.wav")[:80_000].reshape(5, 16_000)
    together = fbank(samples)
    assert together.shape == (5, 98, 80)
    for alone, features in zip(samples, together, strict=True):
        np.testing.assert_allclose(features, fbank(alone), atol=1e-5)


@pytest.mark.parametrize(
    ("samples", "frames"), [(0, 0), (399, 0), (400, 1), (559, 1), (560, 2), (80000, 498)]
)
def test_frame_count(samples: int, frames: int) -> None:
    assert num_frames(samples) == frames
    assert fbank(np.zeros(samples, dtype=np.float32)).shape == (frames, 80)


def test_digital_silence_is_finite() -> None:
    assert np.isfinite(fbank(np.zeros(16000, dtype=np.float32))).all()
