"""Kokoro-82M (StyleTTS 2 family) in plain PyTorch, batched: tokens and durations, then the vocoder.

Written for bulk synthesis: every batch holds rows of equal token count (`plan`) or of equal frame count
(`speak`), so no row is padded and no normalisation ever sees padding. Weights:
`kokoro_torch_weights.state_dict`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .kokoro_torch_vocoder import Vocoder, adain_block, load_adain_block

Weights = dict[str, Tensor]
FRAME_S = 0.025
LAYERS, HEADS = 12, 12


@dataclass(frozen=True)
class Plan:
    """What the vocoder needs of one utterance: states per token and how many frames each token lasts.

    prosody [n, 640], text [n, 512], frames int64 [n], style [256]; n tokens, both pad tokens included.
    """

    prosody: Tensor
    text: Tensor
    frames: Tensor
    style: Tensor
    total: int


def _lstm(weights: Weights, prefix: str, width: int) -> nn.LSTM:
    net = nn.LSTM(width, 256, batch_first=True, bidirectional=True)
    net.load_state_dict(
        {k.removeprefix(prefix + "."): v for k, v in weights.items() if k.startswith(prefix + ".")}
    )
    return net


class Kokoro(nn.Module):
    """Inference only. `half`: float16 convolutions in the generator (CUDA); the rest stays float32."""

    def __init__(self, weights: Weights, *, half: bool = False) -> None:
        super().__init__()
        self.w = nn.ParameterDict(
            {
                k.replace(".", "/"): nn.Parameter(v, requires_grad=False)
                for k, v in weights.items()
                if not k.startswith("decoder.")
            }
        )
        self.duration_lstms = nn.ModuleList(
            _lstm(weights, f"predictor.text_encoder.lstms.{i}", 640) for i in (0, 2, 4)
        )
        self.predictor_lstm = _lstm(weights, "predictor.lstm", 640)
        self.shared_lstm = _lstm(weights, "predictor.shared", 640)
        self.text_lstm = _lstm(weights, "text_encoder.lstm", 512)
        for name in ("F0", "N"):
            setattr(
                self,
                name,
                nn.ModuleList(load_adain_block(weights, f"predictor.{name}.{i}") for i in range(3)),
            )
        self.vocoder = Vocoder(
            {k.removeprefix("decoder."): v for k, v in weights.items() if k.startswith("decoder.")}, half=half
        )

    def _p(self, name: str) -> Tensor:
        value: Tensor = self.w[name.replace(".", "/")]
        return value

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self._p(name + ".weight"), self._p(name + ".bias"))

    def _norm(self, x: Tensor, name: str, eps: float = 1e-12) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self._p(name + ".weight"), self._p(name + ".bias"), eps)

    def _albert(self, tokens: Tensor) -> Tensor:
        """PL-BERT: tokens [b, n] -> [b, n, 768]; one layer's weights used twelve times."""
        b, n = tokens.shape
        e, layer = "bert.embeddings.", "bert.encoder.albert_layer_groups.0.albert_layers.0."
        x = self._p(e + "word_embeddings.weight")[tokens] + self._p(e + "position_embeddings.weight")[:n]
        x = self._norm(x + self._p(e + "token_type_embeddings.weight")[0], e + "LayerNorm")
        x = self._linear(x, "bert.encoder.embedding_hidden_mapping_in")
        for _ in range(LAYERS):
            q, k, v = (
                self._linear(x, f"{layer}attention.{part}").view(b, n, HEADS, -1).transpose(1, 2)
                for part in ("query", "key", "value")
            )
            mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, -1)
            x = self._norm(x + self._linear(mixed, layer + "attention.dense"), layer + "attention.LayerNorm")
            h = F.gelu(self._linear(x, layer + "ffn"), approximate="tanh")
            x = self._norm(x + self._linear(h, layer + "ffn_output"), layer + "full_layer_layer_norm")
        return x

    def _prosody(self, tokens: Tensor, style: Tensor) -> Tensor:
        """Duration encoder: [b, n, 640], the last 128 of it the prosody half of the style."""
        x = self._linear(self._albert(tokens), "bert_encoder")
        s = style[:, None, 128:].expand(-1, x.shape[1], -1)
        x = torch.cat([x, s], -1)
        for i, lstm in zip((1, 3, 5), self.duration_lstms, strict=True):
            gamma, beta = self._linear(style[:, 128:], f"predictor.text_encoder.lstms.{i}.fc")[:, None].chunk(
                2, -1
            )
            x = (1 + gamma) * F.layer_norm(lstm(x)[0], (512,), eps=1e-5) + beta
            x = torch.cat([x, s], -1)
        return x

    def _text(self, tokens: Tensor) -> Tensor:
        """Text encoder: tokens [b, n] -> [b, n, 512]."""
        x = self._p("text_encoder.embedding.weight")[tokens].transpose(1, 2)
        for i in range(3):
            name = f"text_encoder.cnn.{i}."
            x = F.conv1d(x, self._p(name + "0.weight"), self._p(name + "0.bias"), padding=2).transpose(1, 2)
            x = F.layer_norm(x, (512,), self._p(name + "1.gamma"), self._p(name + "1.beta"), 1e-5)
            x = F.leaky_relu(x, 0.2).transpose(1, 2)
        out: Tensor = self.text_lstm(x.transpose(1, 2))[0]
        return out

    @torch.inference_mode()
    def plan(self, tokens: Tensor, style: Tensor, speed: Tensor, totals: Tensor | None = None) -> list[Plan]:
        """tokens int64 [b, n] (0 at both ends), style [b, 256], speed [b] -> one Plan a row.

        With `totals` (allowed frame counts, float, ascending) each row is stretched to the nearest of them;
        without, every duration is rounded by itself, as the published model does.
        """
        prosody = self._prosody(tokens, style)
        hidden = self._linear(self.predictor_lstm(prosody)[0], "predictor.duration_proj.linear_layer")
        seconds = torch.sigmoid(hidden).sum(-1) / speed[:, None]
        frames = seconds.round().clamp(min=1).long()
        if totals is not None:
            frames = _stretch(seconds, frames.sum(1), totals)
        text = self._text(tokens)
        return [
            Plan(prosody[i].clone(), text[i].clone(), frames[i].clone(), style[i], total)
            for i, total in enumerate(frames.sum(1).tolist())
        ]

    @torch.inference_mode()
    def speak(self, plans: list[Plan], noise: bool = False) -> Tensor:
        """Plans of one `total` -> float32 [b, total * 600] at 24 kHz."""
        total = plans[0].total
        at = torch.stack([torch.repeat_interleave(p.frames, output_size=total) for p in plans])
        prosody = torch.stack([p.prosody[i] for p, i in zip(plans, at, strict=True)])
        text = torch.stack([p.text[i] for p, i in zip(plans, at, strict=True)]).transpose(1, 2)
        style = torch.stack([p.style for p in plans])
        x = self.shared_lstm(prosody)[0].transpose(1, 2)
        pitch, energy = (self._curve(name, x, style[:, 128:]) for name in ("F0", "N"))
        wave: Tensor = self.vocoder(text, pitch, energy, style[:, :128], noise)
        return wave

    def _curve(self, name: str, x: Tensor, s: Tensor) -> Tensor:
        """[b, 512, t] -> [b, 2 t]: pitch in Hz (F0) or energy (N)."""
        for block in getattr(self, name):
            x = adain_block(block, x, s)
        proj = f"predictor.{name}_proj."
        return F.conv1d(x, self._p(proj + "weight"), self._p(proj + "bias"))[:, 0]


def _stretch(seconds: Tensor, total: Tensor, totals: Tensor) -> Tensor:
    """Frames per token, at least one each, that add up to the allowed total nearest to `total`."""
    wanted = totals[(total[:, None].float() - totals[None]).abs().argmin(1)]
    ends = (seconds * (wanted / seconds.sum(1))[:, None]).cumsum(1).round()
    frames = torch.diff(ends, dim=1, prepend=torch.zeros_like(ends[:, :1])).clamp(min=1).long()
    spare = wanted.long() - frames.sum(1)
    longest = frames.argmax(1, keepdim=True)
    return frames.scatter_add(1, longest, spare[:, None]).clamp(min=1)


def batch_size(total: int, seconds: float, most: int = 256) -> int:
    """Rows of `total` frames that make about `seconds` of audio, at least one."""
    return max(1, min(most, math.floor(seconds / (total * FRAME_S))))
