"""Transformer adaptor: encoder frames into the LLM's space (`audio_adaptor`) or CTC's (`ctc_decoder`)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoder_service.model_config import AdaptorConfig
from encoder_service.models.layers import FeedForward, LayerNorm, attend, length_mask

NORM_EPS = 1e-12


class SelfAttention(nn.Module):
    """Plain multi-head self-attention with separate projections."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.linear_q = nn.Linear(size, size)
        self.linear_k = nn.Linear(size, size)
        self.linear_v = nn.Linear(size, size)
        self.linear_out = nn.Linear(size, size)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        out: Tensor = self.linear_out(
            attend(self.linear_q(x), self.linear_k(x), self.linear_v(x), self.heads, mask)
        )
        return out


class AdaptorBlock(nn.Module):
    """Pre-norm transformer block; its feed-forward is a quarter as wide as the block."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.self_attn = SelfAttention(size, heads)
        self.feed_forward = FeedForward(size, size // 4)
        self.norm1 = LayerNorm(size, eps=NORM_EPS)
        self.norm2 = LayerNorm(size, eps=NORM_EPS)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        dtype = self.feed_forward.dtype
        x = x + self.self_attn(self.norm1(x, dtype), mask)
        out: Tensor = x + self.feed_forward(self.norm2(x, dtype))
        return out


class TransformerAdaptor(nn.Module):
    """Stacks k frames, projects, mixes: [B, T, encoder_dim] to float32 [B, ceil(T/k), llm_dim]."""

    def __init__(self, config: AdaptorConfig) -> None:
        super().__init__()
        self.k = config.downsample_rate
        self.linear1 = nn.Linear(config.encoder_dim * self.k, config.ffn_dim)
        self.linear2 = nn.Linear(config.ffn_dim, config.llm_dim)
        self.blocks = nn.ModuleList(
            AdaptorBlock(config.llm_dim, config.attention_heads) for _ in range(config.n_layer)
        )

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the frames and their counts [B]; what `x` holds past a length does not matter."""
        if self.k > 1:
            x = self._stack(x, lengths)
            lengths = (lengths + self.k - 1) // self.k
        mask = length_mask(lengths, x.shape[1])
        x = self.linear2(torch.relu(self.linear1(x.to(self.linear1.weight.dtype)))).float()
        for block in self.blocks:
            x = block(x, mask)
        return x, lengths

    def _stack(self, x: Tensor, lengths: Tensor) -> Tensor:
        """[B, T, D] to [B, ceil(T/k), k*D], zeros after the last real frame."""
        x = x.masked_fill(~length_mask(lengths, x.shape[1])[..., None], 0.0)
        x = F.pad(x, (0, 0, 0, -x.shape[1] % self.k))
        return x.reshape(x.shape[0], -1, self.k * x.shape[2])
