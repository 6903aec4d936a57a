"""Fused steps of the packed networks: Triton on CUDA, the same arithmetic in plain torch elsewhere.

Each function dispatches by itself; nothing here waits for the device.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoder_service.models.layers import FeedForward
from encoder_service.models.packing import Packing

try:
    from encoder_service.models import triton_kernels
except ImportError:  # CPU builds of torch come without Triton
    triton_kernels = None  # type: ignore[assignment]

HALVES = (torch.bfloat16, torch.float16)


def fused(x: Tensor) -> bool:
    """Whether the Triton kernels serve this tensor."""
    return x.is_cuda and triton_kernels is not None


def normalise(x: Tensor, norm: nn.LayerNorm, dtype: torch.dtype) -> Tensor:
    """Layer norm of float32 x [N, D], in float32, returned as `dtype`."""
    return F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps).to(dtype)


def add_norm(x: Tensor, delta: Tensor, norm: nn.LayerNorm, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """x += delta in place (float32 [N, D]); returns x and its layer norm as `dtype`."""
    if fused(x):
        return triton_kernels.add_norm(x, delta, norm, dtype)
    x += delta
    return x, normalise(x, norm, dtype)


def add_memory_norm(
    x: Tensor | None,
    projected: Tensor,
    v: Tensor,
    taps: Tensor,
    left: int,
    packing: Packing,
    norm: nn.LayerNorm,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """x += projected + FSMN memory of v, in place; returns x (new when None came) and its norm as `dtype`.

    projected and v [N, D], x float32 [N, D]. taps [K, D]: the memory of a row is v plus its depthwise
    convolution with the taps, tap j on the row j - left further on, within its own segment.
    """
    if fused(projected):
        return triton_kernels.add_memory_norm(x, projected, v, taps, left, packing, norm, dtype)
    delta = memory(v, taps, left, packing).add_(projected)
    total = delta if x is None else x.add_(delta)
    return total, normalise(total, norm, dtype)


def memory(v: Tensor, taps: Tensor, left: int, packing: Packing) -> Tensor:
    """FSMN memory of v [N, D], float32, as sums of shifted rows."""
    out = v.float() * (1 + taps[left])
    rows = v.shape[0]
    for index, tap in enumerate(taps):
        offset = index - left
        if offset == 0 or abs(offset) >= rows:
            continue
        here, there = max(0, -offset), max(0, offset)
        count = rows - abs(offset)
        inside = packing.within(offset)[here : here + count, None]
        shifted = v[there : there + count].float().masked_fill(~inside, 0.0)
        out[here : here + count].addcmul_(shifted, tap.float())
    return out


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, packing: Packing) -> Tensor:
    """Multi-head attention of packed rows [N, D] within their segments; undefined on rows of none."""
    rows, size = q.shape
    q, k, v = (x.view(rows, heads, size // heads) for x in (q, k, v))
    if q.is_cuda and q.dtype in HALVES:
        longest = packing.layout.longest
        flash: Tensor = torch.ops.aten._flash_attention_forward(
            q, k, v, packing.bounds, packing.bounds, longest, longest, 0.0, False, False
        )[0]
        return flash.reshape(rows, size)
    out = torch.zeros_like(q, memory_format=torch.contiguous_format)
    for first, last in pairwise(packing.bounds.tolist()):
        if last > first:
            own = slice(first, last)
            query, key, value = (x[own].transpose(0, 1)[None] for x in (q, k, v))
            out[own] = F.scaled_dot_product_attention(query, key, value)[0].transpose(0, 1)
    return out.reshape(rows, size)


def feed_forward(x: Tensor, layer: FeedForward) -> Tensor:
    """`layer` of x [N, D], its ReLU in the epilogue of the first product where the library has one."""
    out: Tensor = layer.w_2(linear_relu(x, layer.w_1))
    return out


def linear_relu(x: Tensor, layer: nn.Linear) -> Tensor:
    """max(0, layer(x)) of x [N, D]."""
    return product_relu(x, layer.weight, layer.bias)


def product_relu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """max(0, x @ weight.T + bias) of x [N, D] and weight [M, D]."""
    if x.is_cuda:
        return torch._addmm_activation(bias, x, weight.t())
    return torch.relu_(F.linear(x, weight, bias))


def scaled_relu(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """max(0, x * scale + shift) of x [N, D], contiguous; scale and shift float32 [D]."""
    if fused(x):
        return triton_kernels.scaled_relu(x, scale, shift)
    return torch.relu_(torch.addcmul(shift, x.float(), scale)).to(x.dtype)


def masked_taps(taps: Tensor, mask: Tensor, segment: int, dilation: int, out: Tensor) -> None:
    """Dilated convolution of three taps whose products are known, times a mask: into `out` [B * T, D].

    taps [B * T, 3 * D]: products of each frame for the one `dilation` later, itself, the one as much earlier.
    mask [B, S, D]: its sigmoid counts for the frames of segment s, `segment` long.
    """
    if fused(taps):
        triton_kernels.masked_taps(taps, mask, segment, dilation, out)
        return
    clips, frames = len(mask), len(taps) // len(mask)
    before, here, after = taps.view(clips, frames, 3, -1).float().unbind(2)
    total = here.clone()
    if dilation < frames:
        total[:, dilation:] += before[:, :-dilation]
        total[:, :-dilation] += after[:, dilation:]
    total *= mask.float().sigmoid().repeat_interleave(segment, 1)[:, :frames]
    out.copy_(total.flatten(0, 1))


def group_peaks(logits: Tensor, bias: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Maximum and log-sum-exp, float32 [T, G], of each `width` columns of logits [T, G * width] + bias."""
    if fused(logits):
        return triton_kernels.group_peaks(logits, bias, width)
    groups = (logits + bias).view(len(logits), -1, width)
    return groups.amax(-1), groups.logsumexp(-1)
