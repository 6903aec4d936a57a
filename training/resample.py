"""24 kHz -> 16 kHz as one strided convolution, so that bulk synthesis needs no torchaudio."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

_REACH = 24  # input samples on either side of an output sample
_CUTOFF = 0.96 * 8_000 / 24_000  # cycles per input sample


@lru_cache(maxsize=4)
def _taps(device: torch.device) -> Tensor:
    """[2, 1, 2 * _REACH + 2]: Hann-windowed sincs for output samples at input times 3 j and 3 j + 1.5."""
    at = torch.arange(-_REACH, _REACH + 2, dtype=torch.float64)
    rows = []
    for shift in (0.0, 1.5):
        t = at - shift
        window = torch.cos(torch.pi * t / (2 * (_REACH + 2))) ** 2
        row = 2 * _CUTOFF * torch.sinc(2 * _CUTOFF * t) * window
        rows.append(row / row.sum())
    return torch.stack(rows)[:, None].float().to(device)


def to_16k(wave: Tensor) -> Tensor:
    """float32 [b, n] at 24 kHz -> [b, 2 * ceil(n / 3)] at 16 kHz."""
    padded = F.pad(wave[:, None], (_REACH, _REACH + 1 + (-wave.shape[1]) % 3))
    return F.conv1d(padded, _taps(wave.device), stride=3).transpose(1, 2).flatten(1)
