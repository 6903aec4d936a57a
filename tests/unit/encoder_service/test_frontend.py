"""Features against Kaldi's own C++ (kaldi-native-fbank), the stacking rule, and indifference to padding."""

from __future__ import annotations

from pathlib import Path

import kaldi_native_fbank as knf
import numpy as np
import numpy.typing as npt
import pytest
import torch

from encoder_service.cmvn import CmvnError
from encoder_service.frontend import AudioTooShort, Frontend
from encoder_service.model_config import FrontendConfig
from encoder_service.transfer import Transfer
from encoder_service.waves import Samples, Waves

FloatArray = npt.NDArray[np.float32]
NANO = FrontendConfig(lfr_m=7, lfr_n=6)


def noise(samples: int, seed: int = 0) -> FloatArray:
    """Speech-like level: coloured noise with a slow envelope."""
    generator = np.random.default_rng(seed)
    coloured = np.convolve(generator.standard_normal(samples + 2), [0.5, 0.3, 0.2], mode="valid")
    envelope = 0.02 + 0.1 * np.abs(np.sin(np.arange(samples) / 4000.0))
    return np.asarray(coloured * envelope, dtype=np.float32)


def kaldi(samples: FloatArray, window: str, frame_length_ms: float = 25.0) -> FloatArray:
    options = knf.FbankOptions()
    options.frame_opts.dither = 0.0
    options.frame_opts.window_type = window
    options.frame_opts.frame_length_ms = frame_length_ms
    options.mel_opts.num_bins = 80
    options.energy_floor = 0.0
    fbank = knf.OnlineFbank(options)
    fbank.accept_waveform(16000, (samples * 32768.0).tolist())
    fbank.input_finished()
    return np.stack([fbank.get_frame(index) for index in range(fbank.num_frames_ready)])


@pytest.mark.parametrize("window", ["hamming", "povey"])
@pytest.mark.parametrize("samples", [400, 559, 560, 16000, 51234])
def test_fbank_equals_kaldi(window: str, samples: int) -> None:
    clip = noise(samples)
    features, lengths = Frontend(FrontendConfig(window=window)).extract([torch.from_numpy(clip)])
    expected = kaldi(clip, window)
    assert features[0].shape == expected.shape
    assert int(lengths[0]) == len(expected)
    difference = np.abs(features[0].numpy() - expected)
    assert difference.max() < 0.05
    assert difference.mean() < 1e-4


@pytest.mark.parametrize("samples", [399, 320, 257])
def test_clip_shorter_than_a_window_is_one_frame_of_its_own_length(samples: int) -> None:
    clip = noise(samples)
    features, lengths = Frontend(FrontendConfig()).extract([torch.from_numpy(clip)])
    assert lengths.tolist() == [1]
    expected = kaldi(clip, "hamming", frame_length_ms=samples / 16)
    assert np.abs(features[0].numpy() - expected[:1]).max() < 0.05


@pytest.mark.parametrize("samples", [2, 3, 160, 256])
def test_shortest_clips_give_one_finite_frame(samples: int) -> None:
    """Kaldi refuses 80 filters on so short an FFT; the published models floor the filters without a bin."""
    features, lengths = Frontend(FrontendConfig()).extract([torch.from_numpy(noise(samples))])
    assert lengths.tolist() == [1] and features.isfinite().all()
    assert features.min() == pytest.approx(-15.942385, abs=1e-4)


@pytest.mark.parametrize("samples", [0, 1])
def test_clip_without_a_frame_is_refused(samples: int) -> None:
    with pytest.raises(AudioTooShort, match="clip 1"):
        Frontend(NANO).extract([torch.zeros(400), torch.zeros(samples)])


def test_scale_shifts_the_logarithm() -> None:
    clip = torch.from_numpy(noise(8000))
    scaled, _ = Frontend(FrontendConfig()).extract([clip])
    plain, _ = Frontend(FrontendConfig(upscale=False)).extract([clip * 32768.0])
    assert torch.allclose(scaled, plain)


def reference_stack(fbank: FloatArray, m: int, n: int) -> FloatArray:
    """The published rule: repeat the first frame (m-1)//2 times, the last one as often as needed."""
    rows = -(-len(fbank) // n)
    padded = [fbank[0]] * ((m - 1) // 2) + list(fbank)
    while len(padded) < (rows - 1) * n + m:
        padded.append(fbank[-1])
    return np.stack([np.concatenate(padded[row * n : row * n + m]) for row in range(rows)])


@pytest.mark.parametrize(("m", "n"), [(7, 6), (5, 1), (1, 1)])
def test_stacking_rule(m: int, n: int) -> None:
    frontend = Frontend(FrontendConfig(n_mels=3, lfr_m=m, lfr_n=n))
    for count in range(1, 40):
        fbank = np.random.default_rng(count).standard_normal((count, 3)).astype(np.float32)
        twice = torch.from_numpy(np.concatenate((fbank, -fbank)))
        counts = np.array([count, count], dtype=np.int32)
        stacked = frontend.stack(twice, counts, Transfer(torch.device("cpu"))).numpy()
        expected = reference_stack(fbank, m, n)
        np.testing.assert_array_equal(stacked, np.concatenate((expected, -expected)))


@pytest.mark.parametrize(("samples", "frames"), [(80_000, 83), (480_000, 500), (400, 1), (160, 1), (1360, 2)])
def test_frame_count(samples: int, frames: int) -> None:
    frontend = Frontend(NANO)
    assert frontend.frame_count(samples) == frames
    assert frontend.extract([torch.from_numpy(noise(samples))])[0].shape == (1, frames, 560)


def test_padding_never_enters_a_frame() -> None:
    clips = [torch.from_numpy(noise(size, seed=size)) for size in (48_000, 300, 401, 7_777, 16_000)]
    frontend = Frontend(NANO)
    batch, lengths = frontend.extract(clips)
    for row, clip in enumerate(clips):
        alone, count = frontend.extract([clip])
        assert int(lengths[row]) == int(count[0])
        assert torch.allclose(batch[row, : int(count[0])], alone[0], atol=1e-4)
        assert not batch[row, int(count[0]) :].any()


def test_sixteen_bit_samples_give_the_same_features() -> None:
    clips = [(noise(size, seed=size) * 32768).round().astype(np.int16) for size in (16_000, 300, 7_777)]
    floats = [clip.astype(np.float32) / np.float32(32768) for clip in clips]
    frontend, transfer = Frontend(NANO), Transfer(torch.device("cpu"))
    results = []
    batches: list[list[Samples]] = [[*clips], [*floats], [clips[0], *floats[1:]]]
    for given in batches:
        waves = Waves.pack(given, frontend.hop, frontend.window_size, transfer)
        results.append(frontend.packed(waves, transfer))
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_cmvn_file(tmp_path: Path) -> None:
    path = f"{tmp_path}/am.mvn"
    row = "<LearnRateCoef> 0 [ {} ]"
    with open(path, "w", encoding="utf-8") as file:
        file.write("<Nnet>\n<AddShift> 80 80\n" + row.format(" ".join(["-2.5"] * 80)) + "\n")
        file.write("<Rescale> 80 80\n" + row.format(" ".join(["0.5"] * 80)) + "\n</Nnet>\n")
    clip = torch.from_numpy(noise(4000))
    plain, _ = Frontend(FrontendConfig()).extract([clip])
    normalised, _ = Frontend(FrontendConfig(cmvn_file=path)).extract([clip])
    assert torch.allclose(normalised, (plain - 2.5) * 0.5)
    with pytest.raises(CmvnError, match="80 values, the features have 560"):
        Frontend(FrontendConfig(lfr_m=7, lfr_n=6, cmvn_file=path))
