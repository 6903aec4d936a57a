"""Kokoro's decoder: style-conditioned convolutions, a harmonic source, an inverse-STFT generator (iSTFTNet).

The generator works channels-last ([b, t, c]) so that half-precision convolutions need no transposition; its
normalisation and activation are fused in kokoro_torch_fused. Harmonic source as in the ONNX export (no noise)
or, with `noise`, as in the published model.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .kokoro_torch_fused import adain_snake, residual

Weights = dict[str, Tensor]
SAMPLE_RATE, HARMONICS, N_FFT, HOP = 24_000, 9, 20, 5
_KERNELS, _DILATIONS = (3, 7, 11), (1, 3, 5)


def frozen(weights: Weights) -> nn.ParameterDict:
    """Parameters that a plain nn.Module can hold: dots become slashes."""
    return nn.ParameterDict(
        {k.replace(".", "/"): nn.Parameter(v, requires_grad=False) for k, v in weights.items()}
    )


def load_adain_block(weights: Weights, prefix: str) -> nn.ParameterDict:
    """The tensors of one AdaIN residual block, by their names inside it."""
    return frozen({k[len(prefix) + 1 :]: v for k, v in weights.items() if k.startswith(prefix + ".")})


def _adain(x: Tensor, s: Tensor, block: nn.ParameterDict, name: str) -> Tensor:
    gamma, beta = F.linear(s, block[f"{name}/fc/weight"], block[f"{name}/fc/bias"])[:, :, None].chunk(2, 1)
    return (1 + gamma) * F.instance_norm(x, eps=1e-5) + beta


def adain_block(block: nn.ParameterDict, x: Tensor, s: Tensor) -> Tensor:
    """StyleTTS 2's AdainResBlk1d on [b, c, t]; a block with a `pool` doubles t."""
    grows = "pool/weight" in block
    h = F.leaky_relu(_adain(x, s, block, "norm1"), 0.2)
    if grows:
        h = F.conv_transpose1d(
            h,
            block["pool/weight"],
            block["pool/bias"],
            stride=2,
            padding=1,
            output_padding=1,
            groups=h.shape[1],
        )
        x = x.repeat_interleave(2, 2)
    h = F.conv1d(h, block["conv1/weight"], block["conv1/bias"], padding=1)
    h = F.leaky_relu(_adain(h, s, block, "norm2"), 0.2)
    h = F.conv1d(h, block["conv2/weight"], block["conv2/bias"], padding=1)
    if "conv1x1/weight" in block:
        x = F.conv1d(x, block["conv1x1/weight"])
    return (h + x) * math.sqrt(0.5)


class _ResBlock(nn.Module):
    """Generator block: three times (AdaIN, snake, dilated conv, AdaIN, snake, conv), each with a shortcut."""

    def __init__(self, weights: Weights, prefix: str, dtype: torch.dtype) -> None:
        super().__init__()
        self.p = load_adain_block(weights, prefix)
        for key, value in self.p.items():
            if key.startswith("convs") and key.endswith("weight"):
                flat = value.data.unsqueeze(2).to(dtype).contiguous(memory_format=torch.channels_last)
                self.p[key] = nn.Parameter(flat, requires_grad=False)

    def forward(self, x: Tensor, s: Tensor) -> Tensor:
        for i, dilation in enumerate(_DILATIONS):
            h = self._half(x, s, i, 1, dilation)
            h = self._half(h, s, i, 2, 1)
            x = residual(h, x, self.p[f"convs2/{i}/bias"])
        return x

    def _half(self, x: Tensor, s: Tensor, i: int, which: int, dilation: int) -> Tensor:
        """No bias here: a normalisation would undo that of `convs1`, `residual` adds that of `convs2`."""
        style = F.linear(s, self.p[f"adain{which}/{i}/fc/weight"], self.p[f"adain{which}/{i}/fc/bias"])
        x = adain_snake(x, style, self.p[f"alpha{which}/{i}"].view(-1))
        return conv(x, self.p[f"convs{which}/{i}/weight"], None, dilation=dilation)


def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    dilation: int = 1,
    stride: int = 1,
    padding: int | None = None,
) -> Tensor:
    """[b, t, c] * [o, c, 1, k] -> [b, t', o] through a channels-last 2-d convolution."""
    pad = dilation * (weight.shape[-1] - 1) // 2 if padding is None else padding
    y = F.conv2d(
        x.unsqueeze(1).permute(0, 3, 1, 2),
        weight,
        bias,
        stride=(1, stride),
        padding=(0, pad),
        dilation=(1, dilation),
    )
    return y.permute(0, 2, 3, 1).squeeze(1).contiguous()


class Vocoder(nn.Module):
    """text [b, 512, t], pitch and energy [b, 2 t], style [b, 128] -> wave [b, 600 t]."""

    to_real: Tensor
    to_imag: Tensor
    from_real: Tensor
    from_imag: Tensor

    def __init__(self, weights: Weights, *, half: bool) -> None:
        super().__init__()
        self.dtype = torch.float16 if half else torch.float32
        self.encode = load_adain_block(weights, "encode")
        self.decode = nn.ModuleList(load_adain_block(weights, f"decode.{i}") for i in range(4))
        plain = {k: v for k, v in weights.items() if k.split(".")[0] in ("F0_conv", "N_conv", "asr_res")}
        self.p = frozen(
            plain
            | {
                k: v
                for k, v in weights.items()
                if "m_source" in k or "ups" in k or "conv_" in k or "noise_convs" in k
            }
        )
        for key, value in self.p.items():
            if key.endswith("weight") and ("noise_convs" in key or "ups" in key or "conv_post" in key):
                flat = value.data.unsqueeze(2).contiguous(memory_format=torch.channels_last)
                self.p[key] = nn.Parameter(flat.to(self.dtype) if "ups" in key else flat, requires_grad=False)
        self.blocks = nn.ModuleList(
            _ResBlock(weights, f"generator.resblocks.{i}", self.dtype) for i in range(6)
        )
        self.noise_res = nn.ModuleList(
            _ResBlock(weights, f"generator.noise_res.{i}", self.dtype) for i in range(2)
        )
        window = torch.hann_window(N_FFT, periodic=True, dtype=torch.float64)
        steps = (
            2
            * math.pi
            / N_FFT
            * torch.outer(
                torch.arange(N_FFT, dtype=torch.float64), torch.arange(N_FFT // 2 + 1, dtype=torch.float64)
            )
        )
        self.register_buffer("to_real", (window[:, None] * steps.cos()).float(), persistent=False)
        self.register_buffer("to_imag", (-window[:, None] * steps.sin()).float(), persistent=False)
        fold = torch.full((N_FFT // 2 + 1, 1), 2.0 / N_FFT, dtype=torch.float64)
        fold[0] = fold[-1] = 1.0 / N_FFT
        scale = window / 1.5  # squared Hann windows at a quarter of their length add up to 1.5
        self.register_buffer("from_real", (fold * steps.cos().T * scale).float(), persistent=False)
        self.register_buffer("from_imag", (-fold * steps.sin().T * scale).float(), persistent=False)

    def forward(self, text: Tensor, pitch: Tensor, energy: Tensor, style: Tensor, noise: bool) -> Tensor:
        f0, n = (
            F.conv1d(v[:, None], self.p[f"{k}/weight"], self.p[f"{k}/bias"], stride=2, padding=1)
            for k, v in (("F0_conv", pitch), ("N_conv", energy))
        )
        x = adain_block(self.encode, torch.cat([text, f0, n], 1), style)
        side = F.conv1d(text, self.p["asr_res/0/weight"], self.p["asr_res/0/bias"])
        for block in self.decode:
            assert isinstance(block, nn.ParameterDict)
            x = adain_block(block, torch.cat([x, side, f0, n], 1), style)
        return self._generate(x, style, self._source(pitch, noise))

    def _source(self, pitch: Tensor, noise: bool) -> Tensor:
        """Magnitude and phase of the harmonic excitation: pitch [b, 2 t] Hz -> [b, 120 t + 1, 22]."""
        up = SAMPLE_RATE // 80
        order = torch.arange(1, HARMONICS + 1, device=pitch.device)
        turns = (pitch[:, None] * order[:, None] / SAMPLE_RATE) % 1
        phase = F.interpolate(turns.cumsum(-1) * (2 * math.pi * up), scale_factor=up, mode="linear")
        voiced = (pitch > 10).float().repeat_interleave(up, 1)[:, None]
        waves = torch.sin(phase) * 0.1 * voiced
        if noise:
            waves = waves + torch.randn_like(waves) * (voiced * 0.003 + (1 - voiced) * (0.1 / 3))
        mix = F.linear(
            waves.transpose(1, 2),
            self.p["generator/m_source/l_linear/weight"],
            self.p["generator/m_source/l_linear/bias"],
        )[..., 0].tanh()
        frames = F.pad(mix[:, None], (N_FFT // 2, N_FFT // 2), mode="reflect")[:, 0].unfold(-1, N_FFT, HOP)
        real, imag = frames @ self.to_real, frames @ self.to_imag
        return torch.cat([torch.sqrt(real * real + imag * imag), torch.atan2(imag, real)], -1)

    def _generate(self, x: Tensor, style: Tensor, source: Tensor) -> Tensor:
        x = x.transpose(1, 2).to(self.dtype)
        for i, (rate, pad, stride) in enumerate(((10, 5, 6), (6, 3, 1))):
            w = self.p[f"generator/noise_convs/{i}/weight"]
            extra = conv(
                source,
                w,
                self.p[f"generator/noise_convs/{i}/bias"],
                stride=stride,
                padding=(stride + 1) // 2 if stride > 1 else 0,
            )
            extra = self.noise_res[i](extra.to(self.dtype), style)
            x = F.leaky_relu(x, 0.1).unsqueeze(1).permute(0, 3, 1, 2)
            x = F.conv_transpose2d(x, self.p[f"generator/ups/{i}/weight"], stride=(1, rate), padding=(0, pad))
            x = x.permute(0, 2, 3, 1).squeeze(1)
            if i == 1:
                x = torch.cat([x[:, 1:2], x], 1)
            x = residual(x.contiguous(), extra, self.p[f"generator/ups/{i}/bias"])
            outs = [block(x, style) for block in self.blocks[3 * i : 3 * i + 3]]
            x = (outs[0] + outs[1] + outs[2]) / 3
        y = conv(
            F.leaky_relu(x, 0.01).float(),
            self.p["generator/conv_post/weight"],
            self.p["generator/conv_post/bias"],
        )
        size, angle = y[..., : N_FFT // 2 + 1].exp(), torch.sin(y[..., N_FFT // 2 + 1 :])
        pieces = (size * angle.cos()) @ self.from_real + (size * angle.sin()) @ self.from_imag
        return _overlap_add(pieces)


def _overlap_add(pieces: Tensor) -> Tensor:
    """[b, f, 20] every 5 samples -> [b, 5 (f - 1)], the centre padding cut off."""
    b, f, width = pieces.shape
    parts = pieces.view(b, f, width // HOP, HOP)
    out = pieces.new_zeros(b, f + width // HOP - 1, HOP)
    for k in range(width // HOP):
        out[:, k : k + f] += parts[:, :, k]
    return out.view(b, -1)[:, N_FFT // 2 : N_FFT // 2 + HOP * (f - 1)]
