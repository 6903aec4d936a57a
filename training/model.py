"""The networks under training: the encoder tier's own modules, a Qwen3, a second CTC head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoder_service.models.fun_asr_nano import FunASRNano
from encoder_service.models.layers import FeedForward, LayerNorm, cast_matmuls, length_mask
from encoder_service.models.sanm import SanmAttention
from training.batches import LFR, Bucket
from training.qwen3 import MLP, Attention, Qwen3
from training.shape import DemoShape, nano_config, qwen3_config
from training.tables import AUDIO_ID, TokenTables

IGNORE = -100


def segment_gather(flat: Tensor, start: Tensor, length: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Joins runs of `flat` ([B, S] starts and lengths) into rows of `width`.

    Returns rows [B, width, ...] (row 0 of flat past the end), the mask of what is real, and the totals [B].
    """
    ends = length.cumsum(1)
    at = torch.arange(width, device=flat.device)
    slot = (at[None, :, None] >= ends[:, None, :]).sum(-1).clamp_max(start.shape[1] - 1)
    source = (start - ends + length).gather(1, slot) + at
    real = at[None] < ends[:, -1:]
    return flat[torch.where(real, source, 0)], real, ends[:, -1]


@dataclass(frozen=True)
class Store:
    """What batches are gathered from, on the device."""

    frames: Tensor
    ctc: Tensor
    llm: Tensor
    suffix: tuple[int, int]
    end: tuple[int, int]

    @classmethod
    def of(cls, frames: Tensor, tables: TokenTables) -> Store:
        def move(x: Any) -> Tensor:
            return torch.from_numpy(x).to(frames.device).long()

        return cls(frames, move(tables.ctc_flat), move(tables.llm_flat), tables.suffix, tables.end)


@dataclass(frozen=True)
class Inputs:
    """One batch gathered. features float32 [B, T, 560]; targets [B, C]; ids [B, S] with AUDIO_ID holes."""

    features: Tensor
    lengths: Tensor
    targets: Tensor
    ids: Tensor
    prefix: Tensor
    audio: Tensor
    answer: Tensor


def gather(store: Store, spec: Tensor, bucket: Bucket, downsample: int, strength: Tensor | None) -> Inputs:
    """spec [B, columns] to network inputs; `strength` 0..1 scales the feature masking, None turns it off."""
    pairs = spec.view(spec.shape[0], -1, 2)
    start, length = pairs.unbind(-1)
    a, b = 2 * bucket.slots - 1, 3 * bucket.slots - 1
    fbank, real, count = segment_gather(store.frames, start[:, :a], length[:, :a], bucket.frames * LFR)
    fbank = fbank.float()
    if strength is not None:
        fbank = mask_features(fbank, real, count, strength)
    targets, _, _ = segment_gather(store.ctc, start[:, a:b], length[:, a:b], bucket.ctc)
    lengths = (count + LFR - 1) // LFR
    audio = (lengths + downsample - 1) // downsample
    rows = spec.shape[0]
    zero = torch.zeros(rows, 1, dtype=torch.long, device=spec.device)
    starts = torch.cat(
        (start[:, b : b + 1], zero, zero + store.suffix[0], start[:, b + 1 :], zero + store.end[0]), 1
    )
    lens = torch.cat(
        (
            length[:, b : b + 1],
            audio[:, None],
            zero + store.suffix[1],
            length[:, b + 1 :],
            zero + store.end[1],
        ),
        1,
    )
    ids, _, _ = segment_gather(store.llm, starts, lens, bucket.prompt)
    answer = length[:, b + 1 :].sum(1) + 1
    return Inputs(stack(fbank, count), lengths, targets, ids, length[:, b], audio, answer)


def stack(fbank: Tensor, count: Tensor) -> Tensor:
    """Low-frame-rate stacking of [B, 6T, M] to [B, T, 7M], as the encoder's front end does it."""
    rows, width, mels = fbank.shape
    taps = torch.arange(width // LFR, device=fbank.device)[:, None] * LFR + torch.arange(
        -3, 4, device=fbank.device
    )
    index = torch.minimum(taps.clamp_min(0)[None], (count - 1).clamp_min(0)[:, None, None]).view(rows, -1, 1)
    return fbank.gather(1, index.expand(-1, -1, mels)).view(rows, width // LFR, 7 * mels)


def mask_features(fbank: Tensor, real: Tensor, count: Tensor, strength: Tensor) -> Tensor:
    """SpecAugment: two bands of up to 16 mels, spans of up to 8 % or 0.3 s, filled with the mean."""
    rows, width, mels = fbank.shape
    device = fbank.device
    total = (real.sum(1) * mels).clamp_min(1)[:, None, None]
    mean = (fbank * real[..., None]).sum((1, 2), keepdim=True) / total
    at_mel = torch.arange(mels, device=device)
    at = torch.arange(width, device=device)
    hide = torch.zeros(rows, width, mels, dtype=torch.bool, device=device)
    for _ in range(2):
        size = torch.rand(rows, 1, device=device) * 16 * strength
        left = torch.rand(rows, 1, device=device) * (mels - size)
        hide = hide | ((at_mel >= left) & (at_mel < left + size))[:, None, :]
    spans = max(2, width // 150)
    for _ in range(spans):
        size = torch.rand(rows, 1, device=device) * strength * torch.clamp(count * 0.08, max=30)[:, None]
        left = torch.rand(rows, 1, device=device) * (count[:, None] - size)
        hide = hide | ((at >= left) & (at < left + size))[:, :, None]
    return torch.where(hide, mean, fbank)


class TrainingModel(nn.Module):
    """All parameters; `dtype` is that of matrix products on the device."""

    def __init__(self, shape: DemoShape, dropout: float = 0.05, llm_dropout: float = 0.1) -> None:
        super().__init__()
        self.shape = shape
        self.nano = FunASRNano(nano_config(shape))
        self.llm = Qwen3(qwen3_config(shape))
        self.mid_norm = LayerNorm(shape.size)
        self.mid_head = nn.Linear(shape.size, shape.ctc_ranks + 1)
        self.swap = 0.1
        self._mid: Tensor | None = None
        self.nano.audio_encoder.encoders[shape.blocks // 2].register_forward_hook(self._keep_mid)
        for module in self.modules():
            if isinstance(module, SanmAttention | FeedForward) and dropout:
                module.register_forward_hook(_dropout(dropout))
            if isinstance(module, Attention | MLP) and llm_dropout:
                module.register_forward_hook(_dropout(llm_dropout))

    def cast(self, dtype: torch.dtype) -> None:
        cast_matmuls(self, dtype)
        self.llm.model.embed_tokens.to(dtype)

    def _keep_mid(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self._mid = output

    @torch.no_grad()
    def fold_normalisation(self, features: Tensor, lengths: Tensor) -> None:
        """Sets the first norm so that every input dimension starts with zero mean and unit variance."""
        from encoder_service.models.sanm import sinusoidal_positions

        encoder = self.nano.audio_encoder
        places = torch.arange(features.shape[1], device=features.device)
        x = features * encoder.scale + sinusoidal_positions(places, features.shape[2])
        x = F.layer_norm(x, x.shape[-1:])[length_mask(lengths, x.shape[1])]
        norm = encoder.encoders0[0].get_submodule("norm1")
        assert isinstance(norm, LayerNorm)
        norm.weight.copy_(1 / x.std(0).clamp_min(0.05))
        norm.bias.copy_(-x.mean(0) * norm.weight)

    def encode(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """CTC logits float32 [B, T, V], mid-encoder logits, audio embeddings [B, A, D]."""
        out = self.nano(features, lengths)
        assert self.nano.ctc is not None
        logits = self.nano.ctc._logits(out.ctc_hidden)
        mid = self.mid_head(self.mid_norm(self._mid, self.mid_head.weight.dtype)).float()
        return logits, mid, out.audio_embeds

    def prompt_embeds(self, inputs: Inputs, audio: Tensor, ids: Tensor) -> Tensor:
        """Token embeddings [B, S, D] with the audio in its place."""
        embeds = self.llm.embed(ids.clamp_min(0))
        at = torch.arange(ids.shape[1], device=ids.device)[None] - inputs.prefix[:, None]
        index = at.clamp(0, audio.shape[1] - 1)[..., None].expand(-1, -1, audio.shape[2])
        return torch.where((ids == AUDIO_ID)[..., None], audio.gather(1, index), embeds)

    def llm_loss(self, inputs: Inputs, audio: Tensor, bucket: Bucket, suffix: int) -> Tensor:
        """Mean cross-entropy of the answers; some of the answer's inputs are swapped for random tokens."""
        ids = inputs.ids
        at = torch.arange(ids.shape[1], device=ids.device)[None]
        begin = (inputs.prefix + inputs.audio + suffix)[:, None]
        inside = (at >= begin) & (at < begin + inputs.answer[:, None])
        seen = ids
        if self.training and self.swap:
            hit = inside & (torch.rand(ids.shape, device=ids.device) < self.swap)
            seen = torch.where(hit, torch.randint_like(ids, 3, self.shape.llm_vocab), ids)
        hidden = self.llm(self.prompt_embeds(inputs, audio, seen))
        place = begin + torch.arange(bucket.answer, device=ids.device)
        real = place < begin + inputs.answer[:, None]
        place = place.clamp_max(ids.shape[1] - 1)
        labels = torch.where(real, ids.gather(1, place), IGNORE)
        picked = hidden.gather(1, (place - 1)[..., None].expand(-1, -1, hidden.shape[2]))
        loss = F.cross_entropy(self.llm.logits(picked).flatten(0, 1), labels.flatten(), reduction="sum")
        return loss / real.sum()

    def forward(self, inputs: Inputs, bucket: Bucket, suffix: int) -> tuple[Tensor, Tensor]:
        """Log-probabilities [T, 2B, V] of both CTC heads (final first), and the LLM's loss."""
        logits, mid, audio = self.encode(inputs.features, inputs.lengths)
        log_probs = torch.cat((logits, mid)).log_softmax(-1).transpose(0, 1)
        return log_probs, self.llm_loss(inputs, audio, bucket, suffix)


def _dropout(p: float) -> Any:
    def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return F.dropout(output, p, module.training)

    return hook
