"""Kaldi filter-bank features with low-frame-rate stacking, batched on any torch device.

Reproduces what the published models were trained on (Kaldi fbank, snip edges, no dither), without torchaudio.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from encoder_service.cmvn import load_cmvn
from encoder_service.mel import fft_size, make_window, mel_filters
from encoder_service.model_config import FrontendConfig
from encoder_service.transfer import Transfer
from encoder_service.waves import Waves

SAMPLE_SCALE = 32768.0
LOG_FLOOR = 1.1920928955078125e-07
MIN_SAMPLES = 2
PLAN_FRAMES = 1024


class AudioTooShort(ValueError):
    """A clip holds too few samples to make one frame."""


class Frontend(nn.Module):
    """Waveform to features of n_mels * lfr_m values, float32, on the device of the module.

    Clips of any length (at least two samples), `packed` or padded by `extract`. No frame sees past its clip.
    """

    window: Tensor
    mel: Tensor
    cmvn_shift: Tensor
    cmvn_scale: Tensor

    def __init__(self, config: FrontendConfig) -> None:
        super().__init__()
        self.config = config
        self.window_size = int(config.sample_rate * config.frame_length_ms * 0.001)
        self.hop = int(config.sample_rate * config.frame_shift_ms * 0.001)
        self.register_buffer("window", make_window(config.window, self.window_size), persistent=False)
        mel = mel_filters(config, fft_size(self.window_size))
        self.register_buffer("mel", mel, persistent=False)
        shift, scale = load_cmvn(config.cmvn_file, config.feature_size)
        self.register_buffer("cmvn_shift", shift, persistent=False)
        self.register_buffer("cmvn_scale", scale, persistent=False)

    def frame_count(self, samples: int) -> int:
        """Features that a clip of `samples` gives, after stacking."""
        return -(-self._fbank_count(samples) // self.config.lfr_n)

    def extract(self, clips: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """1-D float clips in [-1, 1] to (features [B, T, F], lengths [B] int64). Raises AudioTooShort.

        Rows past a length are zero.
        """
        transfer = Transfer(self.window.device, overlap=False)
        for index, clip in enumerate(clips):
            if len(clip) < MIN_SAMPLES:
                raise AudioTooShort(
                    f"clip {index} has {len(clip)} samples; at least {MIN_SAMPLES} make a frame"
                )
        waves = Waves.pack([clip.numpy() for clip in clips], self.hop, self.window_size, transfer)
        lengths = [self.frame_count(length) for length in waves.lengths]
        padded = pad_sequence(list(torch.split(self.packed(waves, transfer), lengths)), batch_first=True)
        return padded, torch.tensor(lengths).to(padded.device)

    def packed(self, waves: Waves, transfer: Transfer) -> Tensor:
        """Features [T, F] of all clips, one after another; clip i has `frame_count(waves.lengths[i])`."""
        return self.stack(*self.packed_fbank(waves, transfer), transfer)

    def packed_fbank(self, waves: Waves, transfer: Transfer) -> tuple[Tensor, npt.NDArray[np.int32]]:
        """Log mel energies [N, n_mels] of all clips, one after another, and how many each has.

        On CUDA rows that mean nothing may follow.
        """
        counts = np.array([self._fbank_count(length) for length in waves.lengths], dtype=np.int32)
        hops = np.array(waves.starts, dtype=np.int32) // self.hop
        ends = np.cumsum(counts, dtype=np.int32)
        at = np.arange(ends[-1], dtype=np.int32) + np.repeat(hops - (ends - counts), counts)
        if waves.samples.is_cuda:  # each number of frames costs an FFT plan of its own
            at = np.pad(at, (0, -len(at) % PLAN_FRAMES))
        frames = waves.samples.unfold(0, self.window_size, self.hop)[transfer.table(at)]
        scale = waves.scale(SAMPLE_SCALE if self.config.upscale else 1.0)
        fbank = self._log_mel(frames.to(torch.float32) * scale, self.window, self.mel)
        for index, length in enumerate(waves.lengths):
            if length < self.window_size:
                start = waves.starts[index]
                clip = waves.samples[start : start + length].to(torch.float32) * scale
                fbank[int(ends[index]) - 1] = self._short_frame(clip)
        return fbank, counts

    def fbank(self, samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """[B, S >= window] in [-1, 1] to log mel energies [B, N, n_mels] and counts [B].

        Rows past a count are noise.
        """
        frames = samples.to(torch.float32).unfold(-1, self.window_size, self.hop)
        counts = 1 + (lengths - self.window_size).clamp_min(0) // self.hop
        scaled = frames * SAMPLE_SCALE if self.config.upscale else frames
        return self._log_mel(scaled, self.window, self.mel), counts

    def stack(self, fbank: Tensor, counts: npt.NDArray[np.int32], transfer: Transfer) -> Tensor:
        """Low-frame-rate stacking of packed clips: [N, F] to [sum of ceil(count / n), m*F].

        Edge frames repeat to fill the first and last stack.
        """
        m, n = self.config.lfr_m, self.config.lfr_n
        rows = -(-counts // n)
        ends, row_ends = np.cumsum(counts, dtype=np.int32), np.cumsum(rows, dtype=np.int32)
        place = np.arange(row_ends[-1], dtype=np.int32) - np.repeat(row_ends - rows, rows)
        firsts = np.repeat(ends - counts, rows)
        lasts = np.repeat(ends - 1, rows)
        first, middle, last = transfer.table(np.stack((firsts, firsts + place * n, lasts)))
        taps = middle[:, None] + torch.arange(m, device=fbank.device, dtype=torch.int32) - (m - 1) // 2
        taps = torch.minimum(torch.maximum(taps, first[:, None]), last[:, None])
        return (fbank[taps].flatten(1) + self.cmvn_shift) * self.cmvn_scale

    def _fbank_count(self, samples: int) -> int:
        return 1 + max(samples - self.window_size, 0) // self.hop

    def _short_frame(self, clip: Tensor) -> Tensor:
        """The one frame of a clip shorter than the window, which shrinks to the clip."""
        rate = self.config.sample_rate
        size = max(int(rate * (clip.shape[0] / rate * 1000) * 0.001), MIN_SAMPLES)
        window = make_window(self.config.window, size).to(clip.device)
        mel = mel_filters(self.config, fft_size(size)).to(clip.device)
        return self._log_mel(clip[:size], window, mel)

    def _log_mel(self, frames: Tensor, window: Tensor, mel: Tensor) -> Tensor:
        """Scaled frames [..., W] to log mel energies: DC removal, pre-emphasis, window, power, mel, log."""
        frames = frames - frames.mean(dim=-1, keepdim=True)
        previous = torch.cat((frames[..., :1], frames[..., :-1]), dim=-1)
        frames = (frames - self.config.preemphasis * previous) * window
        spectrum = torch.fft.rfft(frames, n=2 * (mel.shape[0] - 1))
        power = spectrum.real.square() + spectrum.imag.square()
        energies: Tensor = power @ mel
        return energies.clamp_min(LOG_FLOOR).log()
