"""Speaker embeddings of segments on the encoder's device: CAM++ read once, windows pooled from its frames."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from encoder_service.frontend import Frontend
from encoder_service.messages import FloatArray, SpeakerWindows
from encoder_service.model_config import FrontendConfig
from encoder_service.models.campplus import EMBED_SIZE, CamPlusPlus
from encoder_service.speaker_plan import Piece, SpeakerConfig, Windows, plan_pieces, plan_windows
from tandem.checkpoint import CheckpointError, describe_misfit, read_tensors

WEIGHTS = "campplus_cn_en_common.pt"
# Kaldi features of samples in [-1, 1], with the window that Kaldi calls povey.
_FEATURES = FrontendConfig(window="povey", upscale=False)


@dataclass(frozen=True)
class _Job:
    """One piece to read: which segment it belongs to, and its samples."""

    clip: FloatArray
    piece: Piece

    def samples(self) -> FloatArray:
        part = self.clip[self.piece.start : self.piece.start + self.piece.length]
        return part if len(part) == self.piece.length else np.resize(part, self.piece.length)


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

    @torch.inference_mode()
    def embed(self, clips: Sequence[FloatArray]) -> list[SpeakerWindows]:
        """Windows of each clip, float32 [n] in [-1, 1]; clips share batches but not results."""
        plans = [plan_pieces(len(clip), self.config, self.sample_rate) for clip in clips]
        jobs = [_Job(clip, piece) for clip, plan in zip(clips, plans, strict=True) for piece in plan]
        frames = self._frames(jobs)
        windows, first = [], 0
        for clip, plan in zip(clips, plans, strict=True):
            own = frames[first : first + len(plan)]
            counts = [len(part) for part in own]
            windows.append(plan_windows(len(clip), plan, counts, self.config, self.sample_rate))
            first += len(plan)
        return self._pool(frames, plans, windows)

    def _frames(self, jobs: list[_Job]) -> list[Tensor]:
        """Each job's frames [n, 512]; pieces of one length are read together."""
        done: dict[int, Tensor] = {}
        for length in sorted({job.piece.length for job in jobs}):
            rows = [row for row, job in enumerate(jobs) if job.piece.length == length]
            size = max(1, int(self.config.batch * self.sample_rate) // length)
            for start in range(0, len(rows), size):
                batch = rows[start : start + size]
                clips = np.stack([jobs[row].samples() for row in batch])
                done.update(zip(batch, self._read(torch.from_numpy(clips)), strict=True))
        return [done[row] for row in range(len(jobs))]

    def _read(self, clips: Tensor) -> Tensor:
        """[B, S] samples to frames [B, n, 512]."""
        clips = clips.to(self._device)
        lengths = torch.full((len(clips),), clips.shape[1], device=self._device)
        features, _ = self._frontend.fbank(clips, lengths)
        features = features - features.mean(1, keepdim=True)
        return self._model.frames(features.to(self.dtype)).transpose(1, 2)

    def _pool(
        self, frames: list[Tensor], plans: list[tuple[Piece, ...]], windows: list[Windows]
    ) -> list[SpeakerWindows]:
        """Statistics over each window's frames, windows of one width together; one copy to the host."""
        ends = np.cumsum([0, *(len(plan) for plan in plans)])
        offsets = np.cumsum([0, *(len(part) for part in frames)])
        rows = [part.frames + offsets[first] for part, first in zip(windows, ends[:-1], strict=True)]
        everything = torch.cat(frames)
        counts = [len(part) for part in rows]
        embeddings = np.empty((sum(counts), self.size), dtype=np.float32)
        owners = np.repeat(np.arange(len(rows)), counts)
        for width in sorted({part.shape[1] for part in rows}):
            chosen = [index for index, part in enumerate(rows) if part.shape[1] == width]
            table = torch.from_numpy(np.concatenate([rows[index] for index in chosen])).to(self._device)
            embeddings[np.isin(owners, chosen)] = self._model.pool(everything[table]).float().cpu().numpy()
        bounds = np.cumsum([0, *counts])
        return [
            SpeakerWindows(embeddings[low:high], part.starts, part.ends)
            for (low, high), part in zip(itertools.pairwise(bounds), windows, strict=True)
        ]


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
