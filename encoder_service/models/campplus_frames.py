"""CAM++ up to its frames with channels last: what a GPU runs, from the same parameters as `CamPlusPlus`.

All 1-D convolutions are matrix products and the steps between them are fused, so nothing of the trunk depends
on a convolution library's choice for a shape; nothing waits for the device, so a CUDA graph can hold it all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoder_service.models.campplus import MASK_SEGMENT, CamPlusPlus, DenseBlock, DenseLayer, Transit
from encoder_service.models.kernels import masked_taps, product_relu, scaled_relu


class CamPlusPlusFrames:
    """Features [B, T, 80] to float32 [B, ceil(T / 2), 512], as CamPlusPlus.frames; products in `dtype`."""

    def __init__(self, model: CamPlusPlus, dtype: torch.dtype) -> None:
        """`model` is float32, on its device, its norms folded. Its head is cast, all else copied."""
        trunk = dict(model.xvector.named_children())
        self._last = _Norm.of(trunk["out_nonlinear"])
        model.head.to(dtype)
        self._head = model.head
        self._dtype = dtype
        first = cast(nn.Conv1d, trunk["tdnn"].get_submodule("linear"))
        self._kernel, self._step = first.kernel_size[0], first.stride[0]
        self._first = _Product.of(first, dtype)
        blocks = [part for part in trunk.values() if isinstance(part, DenseBlock)]
        transits = [part for part in trunk.values() if isinstance(part, Transit)]
        self._blocks = [
            (
                [_Layer.of(layer, dtype) for layer in cast(Iterable[DenseLayer], block.children())],
                _Transit.of(transit, dtype),
            )
            for block, transit in zip(blocks, transits, strict=True)
        ]

    def __call__(self, features: Tensor) -> Tensor:
        planes = self._head.planes(features.to(self._dtype).transpose(1, 2)).permute(0, 3, 1, 2).flatten(2)
        clips, edge = len(planes), self._kernel // 2
        near = F.pad(planes, (0, 0, edge, edge)).unfold(1, self._kernel, self._step)
        frames = near.shape[1]
        x = product_relu(near.flatten(2).flatten(0, 1), self._first.weight, self._first.bias)
        shares = _shares(frames, x)
        for layers, transit in self._blocks:
            x = transit(_dense(x, layers, clips, shares))
        return scaled_relu(x, self._last.scale, self._last.shift).float().view(clips, frames, -1)


@dataclass(frozen=True, slots=True)
class _Norm:
    """A batch norm with running statistics: x * scale + shift, float32 [C]."""

    scale: Tensor
    shift: Tensor

    @classmethod
    def of(cls, owner: nn.Module) -> _Norm:
        norm = cast(nn.BatchNorm1d, owner.get_submodule("batchnorm"))
        assert norm.running_mean is not None and norm.running_var is not None
        scale = norm.weight.float() * torch.rsqrt(norm.running_var.float() + norm.eps)
        return cls(scale, norm.bias.float() - norm.running_mean.float() * scale)


@dataclass(frozen=True, slots=True)
class _Product:
    """A convolution as a product: weight [out, in * kernel], bias [out]."""

    weight: Tensor
    bias: Tensor

    @classmethod
    def of(cls, conv: nn.Conv1d, dtype: torch.dtype) -> _Product:
        bias = conv.bias if conv.bias is not None else conv.weight.new_zeros(conv.out_channels)
        return cls(conv.weight.flatten(1).to(dtype), bias.to(dtype))


@dataclass(frozen=True, slots=True)
class _Transit:
    norm: _Norm
    weight: Tensor

    @classmethod
    def of(cls, transit: Transit, dtype: torch.dtype) -> _Transit:
        return cls(_Norm.of(transit.nonlinear), transit.linear.weight.flatten(1).to(dtype))

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(scaled_relu(x, self.norm.scale, self.norm.shift), self.weight)


@dataclass(frozen=True, slots=True)
class _Layer:
    """A DenseLayer. taps [3 * growth, bottleneck]: the local convolution's, one after the other."""

    norm: _Norm
    narrow: _Product
    taps: Tensor
    squeeze: _Product
    mask: _Product
    dilation: int

    @classmethod
    def of(cls, layer: DenseLayer, dtype: torch.dtype) -> _Layer:
        local = layer.cam_layer.linear_local
        return cls(
            _Norm.of(layer.nonlinear1),
            _Product.of(layer.linear1, dtype),
            local.weight.permute(2, 0, 1).flatten(0, 1).to(dtype),
            _Product.of(layer.cam_layer.linear1, dtype),
            _Product.of(layer.cam_layer.linear2, dtype),
            local.dilation[0],
        )

    def __call__(self, seen: Tensor, out: Tensor, shares: Tensor) -> None:
        """Frames of all clips `seen` [B * T, C] to `out` [B * T, growth]."""
        normed = scaled_relu(seen, self.norm.scale, self.norm.shift)
        hidden = product_relu(normed, self.narrow.weight, self.narrow.bias)
        segments, frames = shares.shape
        clips = len(hidden) // frames
        context = torch.bmm(shares.expand(clips, -1, -1), hidden.view(clips, frames, -1)).flatten(0, 1)
        squeezed = product_relu(context, self.squeeze.weight, self.squeeze.bias)
        mask = F.linear(squeezed, self.mask.weight, self.mask.bias).view(clips, segments, -1)
        masked_taps(F.linear(hidden, self.taps), mask, MASK_SEGMENT, self.dilation, out)


def _dense(x: Tensor, layers: list[_Layer], clips: int, shares: Tensor) -> Tensor:
    """Each layer sees the outputs of all layers before it: [B * T, C] to [B * T, C + all growth]."""
    seen, growth = x.shape[1], layers[0].mask.weight.shape[0]
    out = x.new_empty(len(x), seen + growth * len(layers))
    out[:, :seen] = x
    for layer in layers:
        layer(out[:, :seen], out[:, seen : seen + growth], shares)
        seen += growth
    return out


def _shares(frames: int, like: Tensor) -> Tensor:
    """[S, T]: what each frame adds to the context of segment s, the clip's mean plus the segment's."""
    segment = torch.arange(frames, device=like.device) // MASK_SEGMENT
    count = -(-frames // MASK_SEGMENT)
    own = (segment == torch.arange(count, device=like.device)[:, None]).float()
    return (own / own.sum(1, keepdim=True) + 1.0 / frames).to(like.dtype)
