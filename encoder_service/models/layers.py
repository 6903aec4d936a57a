"""Small pieces that the SANM encoder and the transformer adaptor share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def length_mask(lengths: Tensor, width: int) -> Tensor:
    """[B] lengths to a bool mask [B, width], True on real frames."""
    return torch.arange(width, device=lengths.device)[None] < lengths[:, None]


class LayerNorm(nn.LayerNorm):
    """Layer norm that always computes in float32 and returns the dtype of the layer it feeds.

    The residual stream stays float32 in a bfloat16 model, as it does under autocast in training.
    """

    def forward(self, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        out = F.layer_norm(x.float(), self.normalized_shape, self.weight, self.bias, self.eps)
        return out if dtype is None else out.to(dtype)


class FeedForward(nn.Module):
    """Linear, ReLU, Linear (keys w_1, w_2)."""

    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.w_1 = nn.Linear(size, hidden)
        self.w_2 = nn.Linear(hidden, size)

    @property
    def dtype(self) -> torch.dtype:
        return self.w_1.weight.dtype

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.w_2(torch.relu(self.w_1(x)))
        return out


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor) -> Tensor:
    """Multi-head attention over [B, T, D] projections; keys outside `mask` [B, T] get no weight."""
    batch, width, size = q.shape
    q, k, v = (x.view(batch, width, heads, -1).transpose(1, 2) for x in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
    return out.transpose(1, 2).reshape(batch, width, size)


def cast_matmuls(module: nn.Module, dtype: torch.dtype) -> None:
    """Put the weights of matrix products and convolutions into `dtype`; norms stay float32."""
    for child in module.modules():
        if isinstance(child, nn.Linear | nn.Conv1d):
            child.to(dtype)
