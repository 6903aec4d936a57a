"""A checkpoint on a device, ready to encode batches: one thread launches them, any may collect results."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from encoder_service.batch_inputs import BatchInputs
from encoder_service.checkpoint import Checkpoint
from encoder_service.frontend import MIN_SAMPLES, Frontend
from encoder_service.messages import CtcOutput, EncodedAudio, EncodeItem, Pending
from encoder_service.models.fun_asr_nano import audio_token_count
from encoder_service.models.packed import PackedNetworks
from encoder_service.pending import CtcLanding, Landings, PendingBatch, RowLanding
from encoder_service.runner import (
    QUANTUM,
    BucketRunner,
    BufferSizes,
    GraphExecutor,
    NetworkOutputs,
    PlainRunner,
    Runner,
    Wanted,
)
from encoder_service.speaker import SpeakerEmbedder
from encoder_service.stage_clock import StageClock
from encoder_service.transfer import Transfer
from encoder_service.waves import Samples
from tandem.errors import CapabilityMissing, InvalidAudio, LimitExceeded

log = logging.getLogger("tandem.encoder.engine")

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

LOUDEST = 1e6
"""Of float32 samples: far more than 16 bits that were not scaled, far less than what features overflow at."""


@dataclass(frozen=True)
class EngineConfig:
    """`device` is a torch device; dtype "auto" is bfloat16 where CUDA has it, else float32.

    With `cuda_graphs` all shapes of batches of up to `graph_seconds` of audio are captured in warm_up(), on
    CUDA in bfloat16 only: other precisions have no attention that a graph can hold.
    """

    device: str = "cpu"
    dtype: str = "auto"
    ctc_top_k: int = 16
    max_segment_seconds: float = 120.0
    cuda_graphs: bool = True
    graph_seconds: float = 480.0


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
        self.frontend = Frontend(checkpoint.config.frontend).to(self.device)
        self._transfer = Transfer(self.device, urgent=True)
        self._runner = self._make_runner()
        self._synchronize()  # weights and buffers are made on one stream, and used on others

    @property
    def sample_rate(self) -> int:
        return self.checkpoint.config.frontend.sample_rate

    @property
    def batches_at_once(self) -> int:
        """How many launched batches keep the device busy: on CUDA one computes while another is prepared."""
        return 2 if self.device.type == "cuda" else 1

    def seconds(self, item: EncodeItem) -> float:
        """Duration of an item's audio."""
        return item.num_samples / self.sample_rate

    def validate(self, item: EncodeItem) -> None:
        """Raise InvalidAudio, LimitExceeded or CapabilityMissing when `encode` could not serve the item."""
        samples = item.samples
        if samples.ndim != 1 or samples.dtype not in (np.float32, np.int16):
            raise InvalidAudio(
                f"expected float32 or int16 samples in one dimension, got {samples.dtype} {samples.shape}"
            )
        if item.num_samples < MIN_SAMPLES:
            raise InvalidAudio(f"{item.num_samples} samples are too few to make a frame")
        if self.seconds(item) > self.config.max_segment_seconds:
            limit = self.config.max_segment_seconds
            raise LimitExceeded(f"segment of {self.seconds(item):.1f} s exceeds the limit of {limit:.0f} s")
        if samples.dtype == np.float32:
            _check_levels(samples)
        if item.ctc is not CtcOutput.NONE and not self.checkpoint.has_ctc:
            raise CapabilityMissing("the checkpoint has no CTC weights")
        if item.speakers and self.speakers is None:
            raise CapabilityMissing("this encoder was started without a speaker model")

    def encode(self, items: Sequence[EncodeItem]) -> list[EncodedAudio]:
        """Encode valid items as one batch."""
        return self.launch(items).collect()

    @torch.inference_mode()
    def launch(self, items: Sequence[EncodeItem]) -> Pending:
        """Start encoding valid items as one batch, in their order, without waiting for the device."""
        with self._transfer.computing():
            clock = StageClock(self.device)
            inputs = BatchInputs.of(items, self.frontend, self._transfer)
            frames = tuple(self.frontend.frame_count(item.num_samples) for item in items)
            landings = self._recognise(items, frames, inputs, clock)
            speakers = None
            if inputs.spoken and inputs.waves is not None and self.speakers is not None:
                speakers = self.speakers.launch(inputs.waves, inputs.spoken, self._transfer)
        counts = tuple(self.embed_count(count) for count in frames)
        return PendingBatch(tuple(items), frames, counts, landings, speakers, clock)

    def is_working(self) -> bool:
        """Whether the device still computes; after a kernel went astray none does, in this process."""
        try:
            self._synchronize()
        except RuntimeError:
            return False
        return True

    def embed_count(self, frames: int) -> int:
        """Prompt positions that a segment of `frames` encoder frames fills."""
        adaptor = self.checkpoint.config.adaptor
        return min(audio_token_count(frames, adaptor), -(-frames // adaptor.downsample_rate))

    def warm_up(self) -> None:
        """Encode silence, so that no request pays for lazy initialisation or the capture of a CUDA graph.

        A capture takes the host tens of milliseconds, more than its batch takes the device, and there are
        about a hundred shapes (5 s in all on an H100): without this they come one after another under load.
        """
        ctc = CtcOutput.COMPACT if self.checkpoint.has_ctc else CtcOutput.NONE
        silence = np.zeros(self.sample_rate, dtype=np.int16)
        self.encode([EncodeItem(silence, ctc, speakers=self.speakers is not None)])
        if self.speakers is not None:
            self.speakers.warm_up()
        began = time.perf_counter()
        with torch.inference_mode(), self._transfer.computing():
            shapes = self._runner.prepare()
        if shapes:
            log.info("%d shapes of batches ready after %.1f s", shapes, time.perf_counter() - began)

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _make_runner(self) -> Runner:
        networks, config = PackedNetworks.of(self.model), self.config
        if not (config.cuda_graphs and self.device.type == "cuda" and self.dtype is torch.bfloat16):
            return PlainRunner(networks, config.ctc_top_k, self._transfer)
        per_second = 1 / self.checkpoint.config.frontend.frame_seconds
        longest = math.ceil(config.max_segment_seconds * per_second)
        rows = max(longest, math.ceil(config.graph_seconds * per_second))
        sizes = BufferSizes(-(-rows // (4 * QUANTUM)) * 4 * QUANTUM, longest)
        return BucketRunner(networks, sizes, config.ctc_top_k, self._transfer, GraphExecutor())

    def _recognise(
        self, items: Sequence[EncodeItem], frames: tuple[int, ...], inputs: BatchInputs, clock: StageClock
    ) -> Landings:
        """Features and networks, as far as an item needs them, and their copies to the host."""
        wanted = Wanted(
            any(item.embeds for item in items), any(item.ctc is not CtcOutput.NONE for item in items)
        )
        if not (wanted.embeds or wanted.ctc or any(item.encoder_out for item in items)):
            for _ in range(4):
                clock.mark()
            return Landings()
        features = inputs.features(self.frontend, self._transfer)
        clock.mark()
        outputs = self._runner.run(features, frames, wanted, clock)
        return self._land(items, frames, outputs)

    def _land(
        self, items: Sequence[EncodeItem], frames: tuple[int, ...], outputs: NetworkOutputs
    ) -> Landings:
        """Copies of what each item asked for; they outlive the runner's next batch."""
        embeds = ctc = kept = dense = states = None
        asked = [row for row, item in enumerate(items) if item.embeds]
        if asked and outputs.adapted is not None:
            k = self.checkpoint.config.adaptor.downsample_rate
            index, bounds = self._rows(asked, frames, k, [self.embed_count(count) for count in frames])
            embeds = RowLanding(self._transfer.down(outputs.adapted[index].to(self.dtype)), bounds)
        asked = [row for row, item in enumerate(items) if item.ctc is CtcOutput.COMPACT]
        ctc_config = self.checkpoint.config.ctc
        if asked and outputs.compact is not None and ctc_config is not None:
            k, found = ctc_config.decoder.downsample_rate, outputs.compact
            index, bounds = self._rows(asked, frames, k, [-(-count // k) for count in frames])
            columns = (found.top_ids, found.top_log_probs, found.blank_log_probs, found.remainder_log_probs)
            landing = self._transfer.down(*(column[index] for column in columns))
            ctc = CtcLanding(landing, bounds, ctc_config.vocab_size, ctc_config.blank_id)
        asked = [row for row, item in enumerate(items) if item.keep_ctc and item.ctc is CtcOutput.COMPACT]
        if asked and outputs.hidden is not None and ctc_config is not None:
            k = ctc_config.decoder.downsample_rate
            index, bounds = self._rows(asked, frames, k, [-(-count // k) for count in frames])
            hidden = outputs.hidden[index]
            # Half precision is finer than the bfloat16 products that it comes from.
            hidden = hidden.half() if self.dtype is torch.bfloat16 else hidden.float()
            kept = RowLanding(self._transfer.down(hidden), bounds)
        asked = [row for row, item in enumerate(items) if item.ctc is CtcOutput.DENSE]
        if asked and outputs.hidden is not None and ctc_config is not None and self.model.ctc is not None:
            k = ctc_config.decoder.downsample_rate
            index, bounds = self._rows(asked, frames, k, [-(-count // k) for count in frames])
            dense = RowLanding(self._transfer.down(self.model.ctc(outputs.hidden[index])), bounds)
        asked = [row for row, item in enumerate(items) if item.encoder_out]
        if asked:
            index, bounds = self._rows(asked, frames, 1, list(frames))
            states = RowLanding(self._transfer.down(outputs.states[index]), bounds)
        return Landings(embeds, ctc, kept, dense, states)

    def _rows(
        self, asked: list[int], frames: tuple[int, ...], k: int, counts: list[int]
    ) -> tuple[Tensor, dict[int, tuple[int, int]]]:
        """Where the first `counts` stacks (of k frames) of the asked segments lie, and will lie together."""
        starts = np.cumsum([0, *(-(-count // k) for count in frames[:-1])])
        own = [counts[row] for row in asked]
        ends = np.cumsum(own)
        index = np.arange(ends[-1]) + np.repeat(starts[asked] - (ends - own), own)
        bounds = {row: (int(end) - size, int(end)) for row, end, size in zip(asked, ends, own, strict=True)}
        return self._transfer.table(index.astype(np.int32)), bounds


def _check_levels(samples: Samples) -> None:
    """Raise InvalidAudio when features of float32 samples [n] would not be finite."""
    loudest = max(abs(float(samples.min())), abs(float(samples.max())))  # both are NaN when a sample is
    if not math.isfinite(loudest):
        raise InvalidAudio("samples are not all finite")
    if loudest > LOUDEST:
        raise InvalidAudio(f"a sample of {loudest:.0e} is no audio; full scale is 1")


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """torch dtype for "auto", "float32" or "bfloat16"; ValueError for another name."""
    if name == "auto":
        native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float32
    if name not in DTYPES:
        raise ValueError(f"unknown dtype {name!r}; use auto, {' or '.join(DTYPES)}")
    return DTYPES[name]
