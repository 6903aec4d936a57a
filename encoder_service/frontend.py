"""Kaldi filter-bank features with low-frame-rate stacking, batched on any torch device.

Reproduces what the published models were trained on (Kaldi fbank, snip edges, no dither), without torchaudio.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from encoder_service.cmvn import load_cmvn
from encoder_service.mel import fft_size, make_window, mel_filters
from encoder_service.model_config import FrontendConfig

SAMPLE_SCALE = 32768.0
LOG_FLOOR = 1.1920928955078125e-07
MIN_SAMPLES = 2


class AudioTooShort(ValueError):
    """A clip holds too few samples to make one frame."""


class Frontend(nn.Module):
    """Waveform to features [B, T, n_mels * lfr_m], float32, on the device of the module.

    Call `extract` with a list of 1-D clips of any length (at least two samples), or the module itself with
    a padded batch whose items all span at least one window. Neither lets padding into a frame.
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
        fbank_frames = 1 + max(samples - self.window_size, 0) // self.hop
        return -(-fbank_frames // self.config.lfr_n)

    def extract(self, clips: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """1-D float clips in [-1, 1] to (features [B, T, F], lengths [B] int64). Raises AudioTooShort."""
        device = self.window.device
        lengths = [int(clip.shape[0]) for clip in clips]
        for index, length in enumerate(lengths):
            if length < MIN_SAMPLES:
                raise AudioTooShort(f"clip {index} has {length} samples; at least {MIN_SAMPLES} make a frame")
        width = max(max(lengths), self.window_size)
        batch = torch.zeros(len(clips), width, dtype=torch.float32)
        for row, clip in zip(batch, clips, strict=True):
            row[: clip.shape[0]] = clip
        batch = batch.to(device, non_blocking=True)
        fbank, frames = self.fbank(batch, torch.tensor(lengths).to(device))
        for index, length in enumerate(lengths):
            if length < self.window_size:
                fbank[index, 0] = self._short_frame(batch[index, :length])
        return self.stack(fbank, frames)

    def forward(self, samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """[B, S] in [-1, 1], lengths [B] >= window, to (features [B, T, F], lengths [B]); no host sync."""
        fbank, frames = self.fbank(samples, lengths)
        return self.stack(fbank, frames)

    def fbank(self, samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """[B, S >= window] to log mel energies [B, N, n_mels] and counts [B]; rows past a count are noise."""
        frames = samples.to(torch.float32).unfold(-1, self.window_size, self.hop)
        counts = 1 + (lengths - self.window_size).clamp_min(0) // self.hop
        return self._log_mel(frames, self.window, self.mel), counts

    def stack(self, fbank: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Low-frame-rate stacking: [B, N, F] to [B, ceil(N/n), m*F].

        Edge frames repeat to fill the first and last stack; rows past a length are zero.
        """
        m, n = self.config.lfr_m, self.config.lfr_n
        batch, total, size = fbank.shape
        rows = -(-total // n)
        steps = torch.arange(rows, device=fbank.device)
        taps = steps[:, None] * n + torch.arange(m, device=fbank.device) - (m - 1) // 2
        index = torch.minimum(taps.clamp_min(0)[None], (counts - 1)[:, None, None])
        index = index.reshape(batch, rows * m, 1).expand(-1, -1, size)
        stacked = fbank.gather(1, index).reshape(batch, rows, m * size)
        lengths = (counts + n - 1) // n
        stacked = (stacked + self.cmvn_shift) * self.cmvn_scale
        return stacked.masked_fill((steps[None] >= lengths[:, None])[..., None], 0.0), lengths

    def _short_frame(self, clip: Tensor) -> Tensor:
        """The one frame of a clip shorter than the window, which shrinks to the clip."""
        rate = self.config.sample_rate
        size = max(int(rate * (clip.shape[0] / rate * 1000) * 0.001), MIN_SAMPLES)
        window = make_window(self.config.window, size).to(clip.device)
        mel = mel_filters(self.config, fft_size(size)).to(clip.device)
        return self._log_mel(clip[:size], window, mel)

    def _log_mel(self, frames: Tensor, window: Tensor, mel: Tensor) -> Tensor:
        """Frames [..., W] to log mel energies: DC removal, pre-emphasis, window, power, mel, log."""
        if self.config.upscale:
            frames = frames * SAMPLE_SCALE
        frames = frames - frames.mean(dim=-1, keepdim=True)
        previous = torch.cat((frames[..., :1], frames[..., :-1]), dim=-1)
        frames = (frames - self.config.preemphasis * previous) * window
        spectrum = torch.fft.rfft(frames, n=2 * (mel.shape[0] - 1))
        power = spectrum.real.square() + spectrum.imag.square()
        energies: Tensor = power @ mel
        return energies.clamp_min(LOG_FLOOR).log()
