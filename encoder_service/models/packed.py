"""The networks of fun_asr_nano over packed segments: what serves requests, from the same parameters.

No padding, attention by segment bounds, norms and memory fused with the additions before them, bfloat16
operands with a float32 residual stream where the model is cast. Nothing depends on data or waits for it, so a
CUDA graph can hold all of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from encoder_service.models.adaptor import AdaptorBlock, TransformerAdaptor
from encoder_service.models.ctc import CompactHead
from encoder_service.models.fun_asr_nano import FunASRNano
from encoder_service.models.kernels import add_memory_norm, add_norm, attend, feed_forward, normalise
from encoder_service.models.packing import Packing
from encoder_service.models.sanm import SanmLayer, SenseVoiceEncoderSmall, sinusoidal_positions


class PackedEncoder:
    """SenseVoiceEncoderSmall: features [N, input_size] to float32 [N, output_size].

    What it gives for rows that belong to no segment is undefined, and reaches no other row.
    """

    def __init__(self, encoder: SenseVoiceEncoderSmall) -> None:
        self._encoder = encoder
        self.input_size, self.output_size = encoder.input_size, encoder.after_norm.normalized_shape[0]
        layers = cast(Iterable[SanmLayer], (*encoder.encoders0, *encoder.encoders))
        self._blocks = [_Block.of(layer) for layer in layers]
        self._tp_blocks = [_Block.of(layer) for layer in cast(Iterable[SanmLayer], encoder.tp_encoders)]

    def __call__(self, features: Tensor, packing: Packing) -> Tensor:
        encoder = self._encoder
        x = features.float() * encoder.scale
        x = x + sinusoidal_positions(packing.positions, x.shape[1])
        x = self._run(self._blocks, x, packing, encoder.after_norm)
        return self._run(self._tp_blocks, x, packing, encoder.tp_norm)

    def _run(self, blocks: list[_Block], x: Tensor, packing: Packing, last: torch.nn.LayerNorm) -> Tensor:
        """A chain of layers and the norm after it; each step also makes the norm of the next one."""
        if not blocks:
            return normalise(x, last, torch.float32)
        dtype = blocks[0].layer.feed_forward.dtype
        normed, residual = normalise(x, blocks[0].layer.norm1, dtype), x
        for block, following in zip(blocks, [*blocks[1:], None], strict=True):
            layer, attention = block.layer, block.layer.self_attn
            q, k, v = attention.linear_q_k_v(normed).chunk(3, dim=-1)
            projected = attention.linear_out(attend(q, k, v, attention.heads, packing))
            before = residual if layer.residual else None
            left = attention.pad[0]
            residual, normed = add_memory_norm(
                before, projected, v, block.taps, left, packing, layer.norm2, dtype
            )
            added = feed_forward(normed, layer.feed_forward)
            if following is None:
                return add_norm(residual, added, last, torch.float32)[1]
            residual, normed = add_norm(residual, added, following.layer.norm1, dtype)
        raise AssertionError("the last layer returns")


@dataclass(frozen=True, slots=True)
class _Block:
    """A layer, and its FSMN taps [K, D] as the fused step reads them."""

    layer: SanmLayer
    taps: Tensor

    @classmethod
    def of(cls, layer: SanmLayer) -> _Block:
        return cls(layer, layer.self_attn.fsmn_block.weight[:, 0].t().contiguous())


class PackedAdaptor:
    """TransformerAdaptor: frames [N, encoder_dim] to float32 [N', llm_dim], N' the rows of `stacks`.

    `stacks` packs the same segments in stacks of k frames; it is `frames` itself where k is 1.
    """

    def __init__(self, adaptor: TransformerAdaptor) -> None:
        self._adaptor = adaptor
        self.k, self.output_size = adaptor.k, adaptor.linear2.out_features

    def __call__(self, x: Tensor, frames: Packing, stacks: Packing) -> Tensor:
        adaptor = self._adaptor
        dtype = adaptor.linear1.weight.dtype
        x = self._stack(x, frames, stacks).to(dtype)
        x = adaptor.linear2(torch.relu_(adaptor.linear1(x))).float()
        blocks = list(cast(Iterable[AdaptorBlock], adaptor.blocks))
        if not blocks:
            return x
        normed = normalise(x, blocks[0].norm1, dtype)
        for block, following in zip(blocks, [*blocks[1:], None], strict=True):
            own = block.self_attn
            q, k, v = own.linear_q(normed), own.linear_k(normed), own.linear_v(normed)
            attended = own.linear_out(attend(q, k, v, own.heads, stacks))
            x, normed = add_norm(x, attended, block.norm2, dtype)
            added = feed_forward(normed, block.feed_forward)
            if following is None:
                return x.add_(added)
            x, normed = add_norm(x, added, following.norm1, dtype)
        raise AssertionError("the last block returns")

    def _stack(self, x: Tensor, frames: Packing, stacks: Packing) -> Tensor:
        """[N, D] to [N', k * D], zeros after the last frame of a segment."""
        if stacks.sources is None:
            return x
        ends = frames.ends[stacks.sources]
        taps = stacks.sources[:, None] + torch.arange(self.k, device=x.device, dtype=torch.int32)
        inside = taps < ends[:, None]
        found = x[torch.where(inside, taps, 0)].masked_fill(~inside[..., None], 0.0)
        return found.flatten(1)


@dataclass(frozen=True, slots=True)
class PackedNetworks:
    """Everything that encoding runs, of one model; `ctc` and `head` are None without CTC weights."""

    encoder: PackedEncoder
    adaptor: PackedAdaptor
    ctc: PackedAdaptor | None
    head: CompactHead | None

    @classmethod
    def of(cls, model: FunASRNano) -> PackedNetworks:
        """Call it once the model is on its device and cast: it keeps copies of some parameters."""
        ctc, head = model.ctc_decoder, model.ctc
        dtype = model.audio_adaptor.linear1.weight.dtype
        return cls(
            PackedEncoder(model.audio_encoder),
            PackedAdaptor(model.audio_adaptor),
            PackedAdaptor(ctc) if ctc is not None else None,
            CompactHead(head, dtype) if head is not None else None,
        )
