"""Fun-ASR-Nano up to the LLM: audio encoder, adaptor, CTC branch, named as in the published checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from encoder_service.model_config import AdaptorConfig, NanoConfig
from encoder_service.models.adaptor import TransformerAdaptor
from encoder_service.models.ctc import CtcHead
from encoder_service.models.layers import cast_matmuls, length_mask
from encoder_service.models.sanm import SenseVoiceEncoderSmall

LOW_FRAME_RATE = 8
Count = TypeVar("Count", int, Tensor)


@dataclass(frozen=True)
class NanoOutput:
    """What one padded batch of features becomes; all float32 on the model's device.

    encoder_out [B, T, d], zero past frame_lengths [B]. adaptor_out [B, ceil(T/k), llm_dim]. audio_embeds
    [B, N, llm_dim], zero past token_counts [B]. ctc_hidden [B, T', d_ctc] with ctc_lengths [B], or None.
    """

    encoder_out: Tensor
    frame_lengths: Tensor
    adaptor_out: Tensor
    audio_embeds: Tensor
    token_counts: Tensor
    ctc_hidden: Tensor | None
    ctc_lengths: Tensor | None


class FunASRNano(nn.Module):
    """The networks of one checkpoint. `with_ctc=False` is for checkpoints without CTC tensors."""

    ctc_decoder: TransformerAdaptor | None
    ctc: CtcHead | None

    def __init__(self, config: NanoConfig, with_ctc: bool = True) -> None:
        super().__init__()
        self.config = config
        self.audio_encoder = SenseVoiceEncoderSmall(config.encoder)
        self.audio_adaptor = TransformerAdaptor(config.adaptor)
        if config.ctc is not None and with_ctc:
            self.ctc_decoder = TransformerAdaptor(config.ctc.decoder)
            self.ctc = CtcHead(config.ctc.decoder.llm_dim, config.ctc.vocab_size, config.ctc.blank_id)
        else:
            self.ctc_decoder = self.ctc = None

    def forward(self, features: Tensor, lengths: Tensor) -> NanoOutput:
        """Features [B, T, F] and lengths [B], every length at least 1. No branch depends on data."""
        encoder_out = self.audio_encoder(features, lengths)
        adaptor_out, embeds, counts = self.adapt(encoder_out, lengths)
        ctc_hidden = ctc_lengths = None
        if self.ctc_decoder is not None:
            ctc_hidden, ctc_lengths = self.ctc_decoder(encoder_out, lengths)
        return NanoOutput(encoder_out, lengths, adaptor_out, embeds, counts, ctc_hidden, ctc_lengths)

    def adapt(self, encoder_out: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(adaptor_out, audio_embeds, token_counts) of encoder frames, as NanoOutput describes them."""
        adaptor_out, adaptor_lengths = self.audio_adaptor(encoder_out, lengths)
        counts = torch.minimum(audio_token_count(lengths, self.config.adaptor), adaptor_lengths)
        width = min(audio_token_count(encoder_out.shape[1], self.config.adaptor), adaptor_out.shape[1])
        embeds = adaptor_out[:, :width].masked_fill(~length_mask(counts, width)[..., None], 0.0)
        return adaptor_out, embeds, counts

    def cast(self, dtype: torch.dtype) -> None:
        """Matrix products in `dtype`, but those of the CTC head; norms and residual streams stay float32.

        What bfloat16 costs with the bundled model on its test recordings: 0.3 % of frames change their
        likeliest CTC entry, whose log-probability moves by 0.004 on average and by 0.07 at most; embeddings
        move by 0.5 %. Nearly all of it comes from the encoder.
        """
        cast_matmuls(self.audio_encoder, dtype)
        cast_matmuls(self.audio_adaptor, dtype)
        if self.ctc_decoder is not None:
            cast_matmuls(self.ctc_decoder, dtype)


def audio_token_count(frames: Count, config: AdaptorConfig) -> Count:
    """Prompt positions that `frames` encoder frames fill.

    With use_low_frame_rate the LLM sees only the first ceil(T/8) adaptor frames: the published model was
    trained on this truncation, its attention having moved the content forward. Otherwise it sees them all.
    """
    step = LOW_FRAME_RATE if config.use_low_frame_rate else config.downsample_rate
    return (frames + (step - 1)) // step
