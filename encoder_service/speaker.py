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
from encoder_service.models.campplus_frames import CamPlusPlusFrames
from encoder_service.piece_reader import SIZES, FixedNetwork, Network, cut_even, cut_fixed
from encoder_service.runner import Executor
from encoder_service.speaker_plan import Piece, SpeakerConfig, Windows, plan_pieces, plan_windows
from encoder_service.stage_clock import StageClock
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

    def __init__(self, windows: list[Windows], embeddings: Landing, clock: StageClock) -> None:
        self._windows, self._embeddings, self._clock = windows, embeddings, clock

    def wait(self) -> list[SpeakerWindows]:
        """One for each clip."""
        rows = self._embeddings.take()[0].numpy()
        ends = np.cumsum([len(part.frames) for part in self._windows])
        parts = np.split(rows, ends[:-1])
        return [
            SpeakerWindows(own, part.starts, part.ends)
            for own, part in zip(parts, self._windows, strict=True)
        ]

    def seconds(self) -> float:
        """How long the device took, once they are there."""
        return sum(self._clock.seconds())


class SpeakerEmbedder:
    """CAM++ on a device, beside what else computes there. Not thread-safe.

    With an `executor` the network runs on batches of a few fixed sizes, see FixedNetwork.
    """

    size = EMBED_SIZE

    def __init__(
        self,
        model: CamPlusPlus,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        config: SpeakerConfig | None = None,
        executor: Executor | None = None,
    ) -> None:
        self.config = config or SpeakerConfig()
        self.sample_rate = _FEATURES.sample_rate
        self._transfer = Transfer(device)
        self._frontend = Frontend(_FEATURES).to(device)
        self._model = model.fold_norms().to(device)
        self._network: Network = CamPlusPlusFrames(self._model, dtype)
        self._fixed = executor is not None
        if executor is not None:
            self._network = FixedNetwork(self._network, executor)

    def embed(self, clips: Sequence[Samples]) -> list[SpeakerWindows]:
        """Windows of each clip [S]; clips share batches but not results."""
        transfer = self._transfer
        with transfer.computing():
            waves = Waves.pack(clips, self._frontend.hop, self._frontend.window_size, transfer)
        return self.launch(waves, range(len(clips)), transfer).wait()

    def warm_up(self) -> None:
        """Read silence in every shape that will come, so that no request waits for a first time."""
        for size in SIZES if self._fixed else ():
            for seconds in (self.config.window, self.config.piece):
                silence = np.zeros(round(seconds * self.sample_rate), np.int16)
                self.embed([silence] * size)

    @torch.inference_mode()
    def launch(self, waves: Waves, rows: Sequence[int], owner: Transfer) -> PendingSpeakers:
        """Start on the clips `rows` of a batch that `owner` sent up, without waiting for the device."""
        transfer = self._transfer
        lengths = [waves.lengths[row] for row in rows]
        plans = [plan_pieces(length, self.config, self.sample_rate) for length in lengths]
        jobs = [
            _Job(waves.starts[row] + piece.start, min(piece.length, waves.lengths[row]), piece.length)
            for row, plan in zip(rows, plans, strict=True)
            for piece in plan
        ]
        with transfer.computing():
            transfer.borrow(waves.samples, owner)
            clock = StageClock(transfer.device)
            frames = self._frames(jobs, waves)
            counts = iter([len(part) for part in frames])
            windows = [
                plan_windows(length, plan, [next(counts) for _ in plan], self.config, self.sample_rate)
                for length, plan in zip(lengths, plans, strict=True)
            ]
            embeddings = self._pool(frames, plans, windows)
            clock.mark()
            return PendingSpeakers(windows, transfer.down(embeddings), clock)

    def _frames(self, jobs: list[_Job], waves: Waves) -> list[Tensor]:
        """Each job's frames [n, 512]; pieces of one length are read together."""
        done: dict[int, Tensor] = {}
        for length in sorted({job.length for job in jobs}):
            rows = [row for row, job in enumerate(jobs) if job.length == length]
            most = max(1, int(self.config.batch * self.sample_rate) // length)
            start = 0
            for real, size in cut_fixed(len(rows)) if self._fixed else cut_even(len(rows), most):
                batch = rows[start : start + real]
                start += real
                filled = [jobs[row] for row in batch] + [jobs[batch[-1]]] * (size - real)
                frames = self._read(filled, length, waves)[:real]
                done.update(zip(batch, frames.clone() if self._fixed else frames, strict=True))
        return [done[row] for row in range(len(jobs))]

    def _read(self, jobs: list[_Job], length: int, waves: Waves) -> Tensor:
        """Jobs of one length to their frames [B, n, 512]."""
        own = np.array([(job.start, job.period) for job in jobs], dtype=np.int32)
        begins, periods = self._transfer.table(np.ascontiguousarray(own.T))
        steps = torch.arange(length, device=begins.device, dtype=torch.int32)
        index = begins[:, None] + steps % periods[:, None]
        clips = waves.samples[index].to(torch.float32) * waves.scale(1.0)
        lengths = torch.full((len(clips),), length, device=clips.device)
        features, _ = self._frontend.fbank(clips, lengths)
        return self._network(features - features.mean(1, keepdim=True))

    def _pool(self, frames: list[Tensor], plans: list[tuple[Piece, ...]], windows: list[Windows]) -> Tensor:
        """Embeddings [windows of all clips, 192] float32."""
        ends = np.cumsum([0, *(len(plan) for plan in plans)])
        offsets = np.cumsum([0, *(len(part) for part in frames)])
        rows = [part.frames + offsets[first] for part, first in zip(windows, ends[:-1], strict=True)]
        widths = np.repeat([part.shape[1] for part in rows], [len(part) for part in rows]).astype(np.int32)
        table = np.zeros((len(widths), int(widths.max())), np.int32)
        table[np.arange(table.shape[1]) < widths[:, None]] = np.concatenate([part.ravel() for part in rows])
        own = torch.cat(frames)[self._transfer.table(table)]
        return self._model.pool(own, self._transfer.table(widths))


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
