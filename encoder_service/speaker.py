"""Speaker embeddings of segments on the encoder's device: CAM++ read once, windows pooled from its frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from encoder_service.frontend import Frontend
from encoder_service.messages import SpeakerWindows
from encoder_service.model_config import FrontendConfig
from encoder_service.models.campplus import EMBED_SIZE, CamPlusPlus
from encoder_service.speaker_plan import Piece, SpeakerConfig, Windows, plan_pieces, plan_windows
from encoder_service.transfer import Landing, Transfer
from encoder_service.waves import Samples, Waves
from tandem.checkpoint import CheckpointError, describe_misfit, read_tensors

WEIGHTS = "campplus_cn_en_common.pt"
# Kaldi features of samples in [-1, 1], with the window that Kaldi calls povey.
_FEATURES = FrontendConfig(window="povey", upscale=False)


@dataclass(frozen=True, slots=True)
class _Job:
    """One piece to read: where it begins in the batch's samples, after how many it repeats, its length."""

    start: int
    period: int
    length: int


class PendingSpeakers:
    """Windows whose embeddings are on their way to the host."""

    def __init__(self, windows: list[Windows], embeddings: Landing) -> None:
        self._windows, self._embeddings = windows, embeddings

    def wait(self) -> list[SpeakerWindows]:
        """One for each clip."""
        rows = self._embeddings.wait()[0].numpy()
        ends = np.cumsum([len(part.frames) for part in self._windows])
        parts = np.split(rows, ends[:-1])
        return [
            SpeakerWindows(own, part.starts, part.ends)
            for own, part in zip(parts, self._windows, strict=True)
        ]


class SpeakerEmbedder:
    """CAM++ on a device. Not thread-safe; use it from the thread that owns the device."""

    size = EMBED_SIZE

    def __init__(
        self,
        model: CamPlusPlus,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        config: SpeakerConfig | None = None,
    ) -> None:
        self.config = config or SpeakerConfig()
        self.dtype = dtype
        self.sample_rate = _FEATURES.sample_rate
        self._device = device
        self._frontend = Frontend(_FEATURES).to(device)
        self._model = model.fold_norms().to(device)
        self._model.cast(dtype)

    def embed(self, clips: Sequence[Samples]) -> list[SpeakerWindows]:
        """Windows of each clip [S]; clips share batches but not results."""
        transfer = Transfer(self._device, overlap=False)
        waves = Waves.pack(clips, self._frontend.hop, self._frontend.window_size, transfer)
        return self.launch(waves, range(len(clips)), transfer).wait()

    @torch.inference_mode()
    def launch(self, waves: Waves, rows: Sequence[int], transfer: Transfer) -> PendingSpeakers:
        """Start on the clips `rows` of a batch, without waiting for the device."""
        lengths = [waves.lengths[row] for row in rows]
        plans = [plan_pieces(length, self.config, self.sample_rate) for length in lengths]
        jobs = [
            _Job(waves.starts[row] + piece.start, min(piece.length, waves.lengths[row]), piece.length)
            for row, plan in zip(rows, plans, strict=True)
            for piece in plan
        ]
        frames = self._frames(jobs, waves, transfer)
        counts = iter([len(part) for part in frames])
        windows = [
            plan_windows(length, plan, [next(counts) for _ in plan], self.config, self.sample_rate)
            for length, plan in zip(lengths, plans, strict=True)
        ]
        return PendingSpeakers(windows, transfer.down(self._pool(frames, plans, windows, transfer)))

    def _frames(self, jobs: list[_Job], waves: Waves, transfer: Transfer) -> list[Tensor]:
        """Each job's frames [n, 512]; pieces of one length are read together."""
        done: dict[int, Tensor] = {}
        for length in sorted({job.length for job in jobs}):
            rows = [row for row, job in enumerate(jobs) if job.length == length]
            size = max(1, int(self.config.batch * self.sample_rate) // length)
            for start in range(0, len(rows), size):
                batch = rows[start : start + size]
                own = np.array([(jobs[row].start, jobs[row].period) for row in batch], dtype=np.int32)
                begins, periods = transfer.table(np.ascontiguousarray(own.T))
                steps = torch.arange(length, device=self._device, dtype=torch.int32)
                index = begins[:, None] + steps % periods[:, None]
                done.update(zip(batch, self._read(waves.samples[index], waves.scale(1.0)), strict=True))
        return [done[row] for row in range(len(jobs))]

    def _read(self, clips: Tensor, scale: float) -> Tensor:
        """[B, S] samples, `scale` times which are in [-1, 1], to frames [B, n, 512]."""
        lengths = torch.full((len(clips),), clips.shape[1], device=self._device)
        features, _ = self._frontend.fbank(clips.to(torch.float32) * scale, lengths)
        features = features - features.mean(1, keepdim=True)
        return self._model.frames(features.to(self.dtype)).transpose(1, 2)

    def _pool(
        self,
        frames: list[Tensor],
        plans: list[tuple[Piece, ...]],
        windows: list[Windows],
        transfer: Transfer,
    ) -> Tensor:
        """Embeddings [windows of all clips, 192] float32; windows of one width are taken together."""
        ends = np.cumsum([0, *(len(plan) for plan in plans)])
        offsets = np.cumsum([0, *(len(part) for part in frames)])
        rows = [part.frames + offsets[first] for part, first in zip(windows, ends[:-1], strict=True)]
        everything = torch.cat(frames)
        counts = [len(part) for part in rows]
        embeddings = torch.empty(sum(counts), self.size, device=self._device)
        widths = np.repeat([part.shape[1] for part in rows], counts)
        for width in np.unique(widths):
            table = np.concatenate([part for part in rows if part.shape[1] == width]).astype(np.int32)
            places = np.flatnonzero(widths == width).astype(np.int32)
            pooled = self._model.pool(everything[transfer.table(table)]).float()
            embeddings[transfer.table(places)] = pooled
        return embeddings


def load_speaker_model(directory: Path) -> CamPlusPlus:
    """CAM++ of a directory. Raises CheckpointError when its tensors are not exactly the network's."""
    path = directory / WEIGHTS
    if not path.is_file():
        raise CheckpointError(f"{directory} holds no {WEIGHTS}")
    tensors, model = read_tensors(path), CamPlusPlus()
    misfit = describe_misfit(model.state_dict(), tensors)
    if misfit:
        raise CheckpointError(f"{path} is no CAM++ of this shape. {misfit}")
    model.load_state_dict(tensors)
    return model.eval().requires_grad_(False)
