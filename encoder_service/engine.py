"""A checkpoint on a device, ready to encode padded batches. Not thread-safe: one thread owns the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from encoder_service.checkpoint import Checkpoint
from encoder_service.frontend import MIN_SAMPLES, Frontend
from encoder_service.messages import (
    CompactCtc,
    CtcOutput,
    EncodedAudio,
    EncodeItem,
    FloatArray,
    SpeakerWindows,
    StageTimes,
)
from encoder_service.models.fun_asr_nano import audio_token_count
from encoder_service.speaker import SpeakerEmbedder
from encoder_service.stage_clock import StageClock
from tandem.errors import CapabilityMissing, InvalidAudio, LimitExceeded
from tandem.rpc.tensors import WireTensor

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class EngineConfig:
    """`device` is a torch device; dtype "auto" is bfloat16 where CUDA has it, else float32."""

    device: str = "cpu"
    dtype: str = "auto"
    ctc_top_k: int = 16
    max_segment_seconds: float = 120.0


class EncoderEngine:
    """Batches of segments to embeddings, CTC posteriors and voices; an item's never depend on its batch.

    `speakers` is made for the same device; without it nothing about speakers can be asked.
    """

    def __init__(
        self, checkpoint: Checkpoint, config: EngineConfig, speakers: SpeakerEmbedder | None = None
    ) -> None:
        self.checkpoint = checkpoint
        self.config = config
        self.speakers = speakers
        self.device = torch.device(config.device)
        self.dtype = choose_dtype(config.dtype, self.device)
        self.model = checkpoint.model.to(self.device)
        self.model.cast(self.dtype)
        if self.device.type == "cuda" and self.dtype is torch.bfloat16:
            torch.set_float32_matmul_precision("high")  # the CTC branch stays float32; TF32 is enough for it
        self.frontend = Frontend(checkpoint.config.frontend).to(self.device)

    @property
    def sample_rate(self) -> int:
        return self.checkpoint.config.frontend.sample_rate

    def seconds(self, item: EncodeItem) -> float:
        """Duration of an item's audio."""
        return len(item.samples) / self.sample_rate

    def validate(self, item: EncodeItem) -> None:
        """Raise InvalidAudio, LimitExceeded or CapabilityMissing when `encode` could not serve the item."""
        samples = item.samples
        if samples.ndim != 1 or samples.dtype != np.float32:
            raise InvalidAudio(
                f"expected float32 samples in one dimension, got {samples.dtype} {samples.shape}"
            )
        if samples.shape[0] < MIN_SAMPLES:
            raise InvalidAudio(f"{samples.shape[0]} samples are too few to make a frame")
        if self.seconds(item) > self.config.max_segment_seconds:
            limit = self.config.max_segment_seconds
            raise LimitExceeded(f"segment of {self.seconds(item):.1f} s exceeds the limit of {limit:.0f} s")
        if not np.isfinite(samples).all():
            raise InvalidAudio("samples are not all finite")
        if item.ctc is not CtcOutput.NONE and not self.checkpoint.has_ctc:
            raise CapabilityMissing("the checkpoint has no CTC weights")
        if item.speakers and self.speakers is None:
            raise CapabilityMissing("this encoder was started without a speaker model")

    @torch.inference_mode()
    def encode(self, items: Sequence[EncodeItem]) -> list[EncodedAudio]:
        """Encode valid items as one padded batch."""
        clock = StageClock(self.device)
        frames = [self.frontend.frame_count(item.samples.shape[0]) for item in items]
        clips = [torch.from_numpy(np.require(item.samples, requirements=["C", "W"])) for item in items]
        features, lengths = self.frontend.extract(clips)
        clock.mark()
        # A batch that asks only for voices does not need the recognizer.
        needed = any(item.embeds or item.encoder_out or item.ctc is not CtcOutput.NONE for item in items)
        states = self.model.audio_encoder(features, lengths) if needed else features
        clock.mark()
        embeds = self._embeds(items, frames, states, lengths)
        clock.mark()
        compact, dense = self._ctc(items, frames, states, lengths)
        clock.mark()
        speakers = self._speakers(items)
        clock.mark()
        times = StageTimes(*clock.seconds())
        return [
            EncodedAudio(
                num_frames=frames[row],
                num_embeds=self.embed_count(frames[row]),
                embeds=embeds.get(row),
                compact=compact.get(row),
                dense=dense.get(row),
                encoder_out=to_numpy(states[row, : frames[row]]) if item.encoder_out else None,
                times=times if item.speakers else replace(times, speakers=0.0),
                batch_size=len(items),
                speakers=speakers.get(row),
            )
            for row, item in enumerate(items)
        ]

    def embed_count(self, frames: int) -> int:
        """Prompt positions that a segment of `frames` encoder frames fills."""
        adaptor = self.checkpoint.config.adaptor
        return min(audio_token_count(frames, adaptor), -(-frames // adaptor.downsample_rate))

    def warm_up(self) -> None:
        """Encode a second of silence, so that the first request does not pay for lazy initialisation."""
        ctc = CtcOutput.COMPACT if self.checkpoint.has_ctc else CtcOutput.NONE
        silence = np.zeros(self.sample_rate, dtype=np.float32)
        self.encode([EncodeItem(silence, ctc, speakers=self.speakers is not None)])

    def _embeds(
        self, items: Sequence[EncodeItem], frames: list[int], states: Tensor, lengths: Tensor
    ) -> dict[int, WireTensor]:
        rows = [row for row, item in enumerate(items) if item.embeds]
        if not rows:
            return {}
        _, embeds, _ = self.model.adapt(states, lengths)
        on_host = embeds.to(self.dtype).cpu()
        return {row: to_wire(on_host[row, : self.embed_count(frames[row])]) for row in rows}

    def _ctc(
        self, items: Sequence[EncodeItem], frames: list[int], states: Tensor, lengths: Tensor
    ) -> tuple[dict[int, CompactCtc], dict[int, FloatArray]]:
        rows = [row for row, item in enumerate(items) if item.ctc is not CtcOutput.NONE]
        head, decoder = self.model.ctc, self.model.ctc_decoder
        if not rows or head is None or decoder is None:
            return {}, {}
        hidden, _ = decoder(states[rows], lengths[rows])
        real = {row: hidden[at, : -(-frames[row] // decoder.k)] for at, row in enumerate(rows)}
        dense = {row: to_numpy(head(real[row])) for row in rows if items[row].ctc is CtcOutput.DENSE}
        compact_rows = [row for row in rows if row not in dense]
        return self._compact({row: real[row] for row in compact_rows}), dense

    def _speakers(self, items: Sequence[EncodeItem]) -> dict[int, SpeakerWindows]:
        rows = [row for row, item in enumerate(items) if item.speakers]
        if not rows or self.speakers is None:
            return {}
        return dict(zip(rows, self.speakers.embed([items[row].samples for row in rows]), strict=True))

    def _compact(self, hidden: dict[int, Tensor]) -> dict[int, CompactCtc]:
        """Compact posteriors of several rows in one go, real frames only, one copy to the host per array."""
        ctc, head = self.checkpoint.config.ctc, self.model.ctc
        if not hidden or ctc is None or head is None:
            return {}
        found = head.compact(torch.cat(list(hidden.values())), self.config.ctc_top_k)
        columns = [found.top_ids, found.top_log_probs, found.blank_log_probs, found.remainder_log_probs]
        ends = np.cumsum([part.shape[0] for part in hidden.values()])[:-1]
        ids, tops, blanks, rest = (np.split(column.cpu().numpy(), ends) for column in columns)
        return {
            row: CompactCtc(ids[at], tops[at], blanks[at], rest[at], ctc.vocab_size, ctc.blank_id)
            for at, row in enumerate(hidden)
        }


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """torch dtype for "auto", "float32" or "bfloat16"; ValueError for another name."""
    if name == "auto":
        native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float32
    if name not in DTYPES:
        raise ValueError(f"unknown dtype {name!r}; use auto, {' or '.join(DTYPES)}")
    return DTYPES[name]


def to_wire(tensor: Tensor) -> WireTensor:
    """A host tensor as it travels; bfloat16 as its bit pattern."""
    if tensor.dtype is torch.bfloat16:
        return WireTensor.bfloat16(tensor.contiguous().view(torch.uint16).numpy())
    return WireTensor.of(tensor.numpy())


def to_numpy(tensor: Tensor) -> FloatArray:
    return np.asarray(tensor.float().cpu().numpy(), dtype=np.float32)
