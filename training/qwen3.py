"""A compact Qwen3 for training: transformers' parameter names, no cache, no mask, fit for a CUDA graph.

Sequences are padded on the right; causal attention keeps padding out of every real position.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """Root-mean-square norm in float32; returns `dtype`."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        return F.rms_norm(x.float(), self.weight.shape, self.weight, self.eps).to(dtype)


class Attention(nn.Module):
    """Grouped-query attention with normed heads and rotary positions."""

    def __init__(self, conf: dict[str, Any]) -> None:
        super().__init__()
        size, self.head_dim = conf["hidden_size"], conf["head_dim"]
        self.groups = conf["num_attention_heads"] // conf["num_key_value_heads"]
        self.q_proj = nn.Linear(size, conf["num_attention_heads"] * self.head_dim, bias=False)
        self.k_proj = nn.Linear(size, conf["num_key_value_heads"] * self.head_dim, bias=False)
        self.v_proj = nn.Linear(size, conf["num_key_value_heads"] * self.head_dim, bias=False)
        self.o_proj = nn.Linear(conf["num_attention_heads"] * self.head_dim, size, bias=False)
        self.q_norm = RMSNorm(self.head_dim, conf["rms_norm_eps"])
        self.k_norm = RMSNorm(self.head_dim, conf["rms_norm_eps"])

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, width, _ = x.shape
        q, k, v = (
            p(x).view(batch, width, -1, self.head_dim) for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        q = rotate(self.q_norm(q, torch.float32), cos, sin).to(x.dtype).transpose(1, 2)
        k = rotate(self.k_norm(k, torch.float32), cos, sin).to(x.dtype).transpose(1, 2)
        k = k.repeat_interleave(self.groups, dim=1)
        v = v.transpose(1, 2).repeat_interleave(self.groups, dim=1)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        result: Tensor = self.o_proj(out.transpose(1, 2).reshape(batch, width, -1))
        return result


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of x [B, S, H, D] by tables [S, D]."""
    first, second = x.chunk(2, dim=-1)
    return x * cos[:, None] + torch.cat((-second, first), dim=-1) * sin[:, None]


class MLP(nn.Module):
    """SiLU-gated feed-forward."""

    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(size, hidden, bias=False)
        self.up_proj = nn.Linear(size, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Layer(nn.Module):
    """Pre-norm decoder layer on a float32 residual stream."""

    def __init__(self, conf: dict[str, Any]) -> None:
        super().__init__()
        self.self_attn = Attention(conf)
        self.mlp = MLP(conf["hidden_size"], conf["intermediate_size"])
        self.input_layernorm = RMSNorm(conf["hidden_size"], conf["rms_norm_eps"])
        self.post_attention_layernorm = RMSNorm(conf["hidden_size"], conf["rms_norm_eps"])

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        dtype = self.mlp.up_proj.weight.dtype
        x = x + self.self_attn(self.input_layernorm(x, dtype), cos, sin)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x, dtype))
        return out


class Backbone(nn.Module):
    """Embeddings, layers, final norm (keys `model.*`)."""

    def __init__(self, conf: dict[str, Any]) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(conf["vocab_size"], conf["hidden_size"])
        self.layers = nn.ModuleList(Layer(conf) for _ in range(conf["num_hidden_layers"]))
        self.norm = RMSNorm(conf["hidden_size"], conf["rms_norm_eps"])


class Qwen3(nn.Module):
    """Causal language model with a head tied to the embedding (`lm_head` is written at export)."""

    def __init__(self, conf: dict[str, Any]) -> None:
        super().__init__()
        self.model = Backbone(conf)
        self.rope = (float(conf["rope_parameters"]["rope_theta"]), int(conf["head_dim"]))
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.03)

    def embed(self, ids: Tensor) -> Tensor:
        out: Tensor = self.model.embed_tokens(ids)
        return out.float()

    def forward(self, embeds: Tensor) -> Tensor:
        """Embeddings [B, S, D] to normed hidden states [B, S, D] in the weights' dtype."""
        cos, sin = self._positions(embeds.shape[1], embeds.device)
        x = embeds.float()
        for layer in self.model.layers:
            x = layer(x, cos, sin)
        out: Tensor = self.model.norm(x, self.model.embed_tokens.weight.dtype)
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.model.embed_tokens.weight).float()

    def _positions(self, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
        theta, size = self.rope
        rates = theta ** -(torch.arange(0, size, 2, device=device, dtype=torch.float32) / size)
        phase = torch.arange(width, device=device, dtype=torch.float32)[:, None] * rates
        phase = torch.cat((phase, phase), dim=-1)
        return phase.cos(), phase.sin()
