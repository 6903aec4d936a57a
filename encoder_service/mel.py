"""Analysis windows and Kaldi mel filters."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from encoder_service.model_config import FrontendConfig


def fft_size(window_size: int) -> int:
    """Smallest power of two that holds the window."""
    return 1 << (window_size - 1).bit_length()


@lru_cache(maxsize=512)
def make_window(name: str, size: int) -> Tensor:
    """Symmetric analysis window [size]: hamming, or povey (hann to the power 0.85)."""
    phase = 2 * math.pi * torch.arange(size, dtype=torch.float64) / (size - 1)
    if name == "hamming":
        return (0.54 - 0.46 * phase.cos()).float()
    if name == "povey":
        return (0.5 - 0.5 * phase.cos()).clamp_min(0).pow(0.85).float()
    raise ValueError(f"unknown window {name!r} (hamming, povey)")


@lru_cache(maxsize=16)
def mel_filters(config: FrontendConfig, n_fft: int) -> Tensor:
    """Kaldi's triangular filters [n_fft // 2 + 1, n_mels], triangles in the mel domain, Nyquist bin empty."""
    nyquist = config.sample_rate / 2
    high = config.high_freq if config.high_freq > 0 else nyquist + config.high_freq
    edges = torch.linspace(_mel(config.low_freq), _mel(high), config.n_mels + 2, dtype=torch.float64)
    bins = torch.arange(n_fft // 2, dtype=torch.float64) * config.sample_rate / n_fft
    mels = 1127.0 * torch.log1p(bins / 700.0)[:, None]
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    triangles = torch.minimum((mels - left) / (centre - left), (right - mels) / (right - centre)).clamp_min(0)
    return torch.cat((triangles, torch.zeros(1, config.n_mels, dtype=torch.float64))).float()


def _mel(hertz: float) -> float:
    return 1127.0 * math.log1p(hertz / 700.0)
