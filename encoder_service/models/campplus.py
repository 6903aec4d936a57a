"""CAM++ speaker embeddings: a 2-D convolutional head, dense TDNN blocks with context-aware masking.

H. Wang et al., "CAM++" (2023). Parameter names are those of the published checkpoints.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

FEATURES = 80
EMBED_SIZE = 192
MASK_SEGMENT = 100
"""Frames after subsampling (20 ms) that share one local context in a masking layer."""
_HEAD_CHANNELS = 32
_GROWTH, _BOTTLENECK, _FIRST = 32, 128, 128
# Layers and dilation of each dense block; the channels halve after each.
_BLOCKS = ((12, 1), (24, 2), (16, 2))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions; the first may halve the frequency axis."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        steps = (stride, 1)
        self.conv1 = nn.Conv2d(channels, channels, 3, steps, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride != 1:
            conv = nn.Conv2d(channels, channels, 1, steps, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu_(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return torch.relu_(out)


class ConvHead(nn.Module):
    """[B, 80, T] features to [B, 320, T]: 32 channels times 10 bands."""

    out_channels = _HEAD_CHANNELS * FEATURES // 8

    def __init__(self) -> None:
        super().__init__()
        size = _HEAD_CHANNELS
        self.conv1 = nn.Conv2d(1, size, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(size)
        self.layer1 = nn.Sequential(ResidualBlock(size, 2), ResidualBlock(size, 1))
        self.layer2 = nn.Sequential(ResidualBlock(size, 2), ResidualBlock(size, 1))
        self.conv2 = nn.Conv2d(size, size, 3, (2, 1), padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(size)

    def forward(self, x: Tensor) -> Tensor:
        return self.planes(x).flatten(1, 2)

    def planes(self, x: Tensor) -> Tensor:
        """[B, 32, 10, T], channels last in memory."""
        planes = x[:, None].contiguous(memory_format=torch.channels_last)
        out = torch.relu_(self.bn1(self.conv1(planes)))
        out = self.layer2(self.layer1(out))
        return torch.relu_(self.bn2(self.conv2(out)))


def _norm(channels: int, affine: bool = True) -> nn.Sequential:
    """Batch norm under the key `batchnorm`; the ReLU after it has no parameters."""
    return nn.Sequential(OrderedDict(batchnorm=nn.BatchNorm1d(channels, affine=affine)))


class TdnnLayer(nn.Module):
    """Convolution, batch norm, ReLU; halves the frame rate."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.linear = nn.Conv1d(in_channels, out_channels, 5, 2, padding=2, bias=False)
        self.nonlinear = _norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu_(self.nonlinear(self.linear(x)))


class CamLayer(nn.Module):
    """A local convolution, masked by what the whole clip and the second around each frame sound like."""

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.linear_local = nn.Conv1d(
            _BOTTLENECK, _GROWTH, 3, padding=dilation, dilation=dilation, bias=False
        )
        self.linear1 = nn.Conv1d(_BOTTLENECK, _BOTTLENECK // 2, 1)
        self.linear2 = nn.Conv1d(_BOTTLENECK // 2, _GROWTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        # The mask is constant over each segment, so it is computed once a segment, not once a frame.
        local = F.avg_pool1d(x, MASK_SEGMENT, MASK_SEGMENT, ceil_mode=True)
        context = x.mean(-1, keepdim=True) + local
        mask = torch.sigmoid(self.linear2(torch.relu_(self.linear1(context))))
        out: Tensor = self.linear_local(x)
        if mask.shape[-1] > 1:
            mask = mask.repeat_interleave(MASK_SEGMENT, dim=-1)[..., : out.shape[-1]]
        return out * mask


class DenseLayer(nn.Module):
    """BN-ReLU, 1x1 to the bottleneck, BN-ReLU, masked convolution: 32 new channels."""

    def __init__(self, in_channels: int, dilation: int) -> None:
        super().__init__()
        self.nonlinear1 = _norm(in_channels)
        self.linear1 = nn.Conv1d(in_channels, _BOTTLENECK, 1, bias=False)
        self.nonlinear2 = _norm(_BOTTLENECK)
        self.cam_layer = CamLayer(dilation)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.linear1(torch.relu_(self.nonlinear1(x)))
        out: Tensor = self.cam_layer(torch.relu_(self.nonlinear2(hidden)))
        return out


class DenseBlock(nn.Module):
    """Each layer sees the outputs of all layers before it."""

    def __init__(self, layers: int, in_channels: int, dilation: int) -> None:
        super().__init__()
        for index in range(layers):
            layer = DenseLayer(in_channels + index * _GROWTH, dilation)
            self.add_module(f"tdnnd{index + 1}", layer)

    def forward(self, x: Tensor) -> Tensor:
        seen = x.shape[1]
        out = x.new_empty(x.shape[0], seen + _GROWTH * len(self._modules), x.shape[-1])
        out[:, :seen] = x
        for layer in self.children():
            out[:, seen : seen + _GROWTH] = layer(out[:, :seen])
            seen += _GROWTH
        return out


class Transit(nn.Module):
    """BN-ReLU and a 1x1 convolution that halves the channels."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.nonlinear = _norm(in_channels)
        self.linear = nn.Conv1d(in_channels, in_channels // 2, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(torch.relu_(self.nonlinear(x)))
        return out


class DenseOut(nn.Module):
    """1x1 convolution and a batch norm without affine part."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.linear = nn.Conv1d(in_channels, out_channels, 1, bias=False)
        self.nonlinear = _norm(out_channels, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.nonlinear(self.linear(x))
        return out


class CamPlusPlus(nn.Module):
    """Mean-normalised log mel features [B, T, 80] of one speaker each to embeddings [B, 192]."""

    def __init__(self) -> None:
        super().__init__()
        self.head = ConvHead()
        parts: OrderedDict[str, nn.Module] = OrderedDict(tdnn=TdnnLayer(ConvHead.out_channels, _FIRST))
        channels = _FIRST
        for index, (layers, dilation) in enumerate(_BLOCKS, start=1):
            parts[f"block{index}"] = DenseBlock(layers, channels, dilation)
            channels += layers * _GROWTH
            parts[f"transit{index}"] = Transit(channels)
            channels //= 2
        parts["out_nonlinear"] = _norm(channels)
        self.xvector = nn.Sequential(parts)
        self.xvector.add_module("dense", DenseOut(2 * channels, EMBED_SIZE))

    def forward(self, features: Tensor) -> Tensor:
        frames = self.frames(features)
        return self.pool(frames.transpose(1, 2))

    def frames(self, features: Tensor) -> Tensor:
        """[B, T, 80] to what the statistics are taken of, float32 [B, 512, ceil(T / 2)], one each 20 ms."""
        *trunk, _ = self.xvector.children()
        x = self.head(features.transpose(1, 2))
        for part in trunk:
            x = part(x)
        return torch.relu_(x).float()

    def pool(self, frames: Tensor, counts: Tensor | None = None) -> Tensor:
        """Frames of one speaker each, float32 [B, n, 512], to embeddings [B, 192].

        `counts` int32 [B], at least 2, says how many come first that are to be taken; all without it.
        """
        if counts is None:
            counts = torch.full((len(frames),), frames.shape[1], device=frames.device)
        live = (torch.arange(frames.shape[1], device=frames.device) < counts[:, None])[..., None]
        mean = frames.masked_fill(~live, 0.0).sum(1) / counts[:, None]
        squares = (frames - mean[:, None]).masked_fill_(~live, 0.0).square_().sum(1)
        stats = torch.cat((mean, (squares / (counts[:, None] - 1)).sqrt()), dim=-1)
        dense = self.xvector.get_submodule("dense")
        conv = cast(nn.Conv1d, dense.get_submodule("linear"))
        out: Tensor = dense.get_submodule("nonlinear")(F.linear(stats, conv.weight[..., 0], conv.bias))
        return out

    def fold_norms(self) -> CamPlusPlus:
        """Fold every batch norm that follows a convolution into it; for inference only. Returns self."""
        self.eval()
        for module in list(self.modules()):
            if isinstance(module, ConvHead | ResidualBlock):
                for conv, norm in (("conv1", "bn1"), ("conv2", "bn2")):
                    _fold(module, conv, module, norm)
            if isinstance(module, ResidualBlock) and len(module.shortcut):
                _fold(module.shortcut, "0", module.shortcut, "1")
            if isinstance(module, TdnnLayer | DenseOut):
                _fold(module, "linear", module.nonlinear, "batchnorm")
            if isinstance(module, DenseLayer):
                _fold(module, "linear1", module.nonlinear2, "batchnorm")
        # The 2-D convolutions are a third faster with channels last; one conversion a batch pays for itself.
        self.head.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self


def _fold(conv_owner: nn.Module, conv: str, norm_owner: nn.Module, norm: str) -> None:
    module, batch_norm = conv_owner.get_submodule(conv), norm_owner.get_submodule(norm)
    assert isinstance(module, nn.Conv1d | nn.Conv2d) and isinstance(
        batch_norm, nn.BatchNorm1d | nn.BatchNorm2d
    )
    setattr(conv_owner, conv, fuse_conv_bn_eval(module, batch_norm))
    setattr(norm_owner, norm, nn.Identity())
