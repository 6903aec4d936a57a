"""Speech with transcripts, from synthesis shards or from folders of Opus files, as one flat int16 signal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

SAMPLE_RATE = 16000
MIN_SECONDS, MAX_SECONDS = 0.4, 28.0


@dataclass(frozen=True)
class Corpus:
    """`audio` int16 16 kHz on the CPU; utterance i is audio[start[i] : start[i] + length[i]]."""

    audio: Tensor
    start: Tensor
    length: Tensor
    texts: list[str]
    voices: list[str]

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def hours(self) -> float:
        return float(self.length.sum()) / SAMPLE_RATE / 3600

    def subset(self, index: list[int]) -> Corpus:
        """The same signal with fewer utterances."""
        pick = torch.tensor(index, dtype=torch.long)
        return Corpus(
            self.audio,
            self.start[pick],
            self.length[pick],
            [self.texts[i] for i in index],
            [self.voices[i] for i in index],
        )


def load_corpus(paths: list[Path], max_hours: float = 1e9) -> Corpus:
    """Joins shards (`*.pt`), and folders of shards or of `X.opus` + `X.tsv` (start s, end s, voice, text)."""
    parts: list[Corpus] = []
    hours = 0.0
    for path in paths:
        files = [path] if path.is_file() else sorted([*path.glob("*.pt"), *path.glob("*.opus")])
        for file in files:
            if hours >= max_hours:
                break
            parts.append(_load_shard(file) if file.suffix == ".pt" else _load_opus(file))
            hours += parts[-1].hours
    if not parts:
        raise FileNotFoundError(f"no shards (.pt) or Opus files under {[str(p) for p in paths]}")
    return _join(parts)


def _load_shard(path: Path) -> Corpus:
    data = torch.load(path, map_location="cpu", weights_only=True)
    offsets = torch.as_tensor(data["offsets"], dtype=torch.long)
    return Corpus(
        torch.as_tensor(data["audio"]), offsets[:-1], offsets.diff(), list(data["text"]), list(data["voice"])
    )


def _load_opus(path: Path) -> Corpus:
    import soundfile

    audio, rate = soundfile.read(path, dtype="int16")
    if rate != SAMPLE_RATE:
        raise ValueError(f"{path} has {rate} Hz, expected {SAMPLE_RATE}")
    rows = [line.split("\t") for line in path.with_suffix(".tsv").read_text().splitlines()]
    start = np.array([round(float(r[0]) * rate) for r in rows])
    end = np.minimum([round(float(r[1]) * rate) for r in rows], len(audio))
    return Corpus(
        torch.from_numpy(audio),
        torch.from_numpy(start),
        torch.from_numpy(end - start),
        [r[3] for r in rows],
        [r[2] for r in rows],
    )


def _join(parts: list[Corpus]) -> Corpus:
    base = np.cumsum([0, *(part.audio.numel() for part in parts)])
    joined = Corpus(
        torch.cat([part.audio for part in parts]),
        torch.cat([part.start + int(b) for part, b in zip(parts, base[:-1], strict=True)]),
        torch.cat([part.length for part in parts]),
        [text.strip() for part in parts for text in part.texts],
        [voice for part in parts for voice in part.voices],
    )
    seconds = (joined.length / SAMPLE_RATE).tolist()
    keep = [
        i
        for i, (s, t) in enumerate(zip(seconds, joined.texts, strict=True))
        if t and MIN_SECONDS <= s <= MAX_SECONDS
    ]
    return joined.subset(keep)


def split_dev(corpus: Corpus, dev: int) -> tuple[Corpus, Corpus]:
    """Holds out about `dev` utterances, and every other utterance of the same sentences from training."""
    order = torch.randperm(len(corpus), generator=torch.Generator().manual_seed(7)).tolist()
    held = {corpus.texts[i] for i in order[:dev]}
    train = [i for i, text in enumerate(corpus.texts) if text not in held]
    return corpus.subset(train), corpus.subset(order[:dev])
