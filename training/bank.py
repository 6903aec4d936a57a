"""Filter-bank frames of the whole corpus in every acoustic condition, made once on the device."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from encoder_service.frontend import Frontend
from encoder_service.model_config import FrontendConfig
from training.augment import Condition, apply
from training.corpus import Corpus

GROUP_SAMPLES = 24_000_000
WIDTH_STEP = 8000
PAUSE_FRAMES = 128
PAUSES = 4


@dataclass(frozen=True)
class FeatureBank:
    """`frames` float16 [F, n_mels] on the device; copy v of utterance i is
    frames[start[i, v] :][: count[i, v]].

    `pause_start` points at PAUSES runs of PAUSE_FRAMES silent frames: the first is digital silence.
    """

    frames: Tensor
    start: np.ndarray
    count: np.ndarray
    pause_start: np.ndarray


@torch.no_grad()
def build_bank(
    corpus: Corpus,
    conditions: tuple[Condition, ...],
    frontend: FrontendConfig,
    device: torch.device,
    seed: int = 0,
) -> FeatureBank:
    rng = random.Random(seed)
    torch.manual_seed(seed)
    fbank = Frontend(frontend).to(device)
    chunks = [_pauses(fbank, device)]
    start = np.zeros((len(corpus), len(conditions)), dtype=np.int64)
    count = np.zeros_like(start)
    filled = chunks[0].shape[0]
    for rows, clips, lengths in _groups(corpus, device):
        for v, condition in enumerate(conditions):
            made, made_lengths = apply(condition, clips, lengths, rng)
            features, counts = fbank.fbank(made, made_lengths)
            inside = torch.arange(features.shape[1], device=device)[None] < counts[:, None]
            chunks.append(features[inside].half())
            n = counts.cpu().numpy()
            count[rows, v] = n
            start[rows, v] = filled + np.cumsum(n) - n
            filled += int(n.sum())
    pauses = np.arange(PAUSES, dtype=np.int64) * PAUSE_FRAMES
    return FeatureBank(torch.cat(chunks), start, count, pauses)


def _pauses(fbank: Frontend, device: torch.device) -> Tensor:
    """Digital silence, then ever louder room noise."""
    samples = 400 + 160 * (PAUSE_FRAMES - 1)
    level = torch.tensor([0.0, 1e-4, 3e-4, 1e-3], device=device)[:, None]
    clips = torch.randn(PAUSES, samples, device=device) * level
    clips = (clips * 32768).round() / 32768
    features, _ = fbank.fbank(clips, torch.full((PAUSES,), samples, device=device))
    return features.reshape(PAUSES * PAUSE_FRAMES, -1).half()


def _groups(corpus: Corpus, device: torch.device) -> Iterator[tuple[np.ndarray, Tensor, Tensor]]:
    """Utterances of like length: their rows, clips [B, S] in [-1, 1] and lengths [B] on the device.

    Widths are multiples of WIDTH_STEP, so that few FFT plans serve all groups.
    """
    order = torch.argsort(corpus.length)
    widths = (-(-corpus.length[order] // WIDTH_STEP) * WIDTH_STEP).tolist()
    audio = corpus.audio.to(device)
    begin = 0
    while begin < len(order):
        width = widths[begin]
        end = begin + 1
        while end < len(order) and widths[end] == width and (end + 1 - begin) * width <= GROUP_SAMPLES:
            end += 1
        rows = order[begin:end]
        lengths = corpus.length[rows].to(device)
        span = torch.arange(width, device=device)
        index = (corpus.start[rows].to(device)[:, None] + span).clamp_max(audio.numel() - 1)
        clips = audio[index].float() / 32768 * (span[None] < lengths[:, None])
        yield rows.numpy(), clips, lengths
        begin = end
