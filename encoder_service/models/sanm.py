"""SenseVoice encoder (SANM): self-attention with a memory block, a depthwise convolution over the values.

Full context, no subsampling. Parameter names are those under `audio_encoder.` in the published checkpoint.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoder_service.model_config import SanmConfig
from encoder_service.models.layers import FeedForward, LayerNorm, attend, length_mask


def sinusoidal_positions(places: Tensor, depth: int) -> Tensor:
    """Positions of frames at `places` [N], from 0, as [N, depth] float32: all sines, then all cosines."""
    half = depth // 2
    step = math.log(10000.0) / (half - 1)
    rates = torch.exp(torch.arange(half, device=places.device, dtype=torch.float32) * -step)
    phase = (places + 1).float()[:, None] * rates
    return torch.cat((phase.sin(), phase.cos()), dim=1)


class SanmAttention(nn.Module):
    """Multi-head attention plus FSMN memory over the un-headed values, past the output projection."""

    def __init__(self, input_size: int, size: int, heads: int, kernel: int, shift: int) -> None:
        super().__init__()
        self.heads = heads
        left = (kernel - 1) // 2 + shift
        self.pad = (left, kernel - 1 - left)
        self.linear_q_k_v = nn.Linear(input_size, 3 * size)
        self.linear_out = nn.Linear(size, size)
        self.fsmn_block = nn.Conv1d(size, size, kernel, groups=size, bias=False)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = self.linear_q_k_v(x).chunk(3, dim=-1)
        out: Tensor = self.linear_out(attend(q, k, v, self.heads, mask))
        return out + self.memory(v, mask[..., None])

    def memory(self, v: Tensor, mask: Tensor) -> Tensor:
        """FSMN: v plus its depthwise convolution over time, with padded frames held at zero."""
        v = v.masked_fill(~mask, 0.0)
        conv = self.fsmn_block(F.pad(v.transpose(1, 2), self.pad)).transpose(1, 2)
        out: Tensor = (conv + v).masked_fill(~mask, 0.0)
        return out


class SanmLayer(nn.Module):
    """Pre-norm layer. The input layer changes the width, so its attention has no residual."""

    def __init__(self, input_size: int, config: SanmConfig) -> None:
        super().__init__()
        size = config.output_size
        self.residual = input_size == size
        self.self_attn = SanmAttention(
            input_size, size, config.attention_heads, config.kernel_size, config.sanm_shift
        )
        self.feed_forward = FeedForward(size, config.linear_units)
        self.norm1 = LayerNorm(input_size, eps=1e-5)
        self.norm2 = LayerNorm(size, eps=1e-5)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        dtype = self.feed_forward.dtype
        attended: Tensor = self.self_attn(self.norm1(x, dtype), mask)
        x = x + attended if self.residual else attended.float()
        out: Tensor = x + self.feed_forward(self.norm2(x, dtype))
        return out


class SenseVoiceEncoderSmall(nn.Module):
    """Features [B, T, input_size] to float32 [B, T, output_size], zero past each length."""

    def __init__(self, config: SanmConfig) -> None:
        super().__init__()
        size = config.output_size
        self.input_size = config.input_size
        self.scale = size**0.5
        self.encoders0 = nn.ModuleList([SanmLayer(config.input_size, config)])
        self.encoders = nn.ModuleList(SanmLayer(size, config) for _ in range(config.num_blocks - 1))
        self.tp_encoders = nn.ModuleList(SanmLayer(size, config) for _ in range(config.tp_blocks))
        self.after_norm = LayerNorm(size, eps=1e-5)
        self.tp_norm = LayerNorm(size, eps=1e-5)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        mask = length_mask(lengths, features.shape[1])
        x = features.float() * self.scale
        x = x + sinusoidal_positions(torch.arange(x.shape[1], device=x.device), x.shape[2])
        for layer in (*self.encoders0, *self.encoders):
            x = layer(x, mask)
        x = self.after_norm(x)
        for layer in self.tp_encoders:
            x = layer(x, mask)
        out: Tensor = self.tp_norm(x)
        return out.masked_fill(~mask[..., None], 0.0)
