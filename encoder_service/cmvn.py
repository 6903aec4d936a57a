"""Reads `am.mvn`, the Kaldi-nnet text file in which FunASR models keep mean and variance normalisation."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor


class CmvnError(ValueError):
    """The file is not a pair of AddShift and Rescale rows of the expected size."""


def load_cmvn(path: str | None, size: int) -> tuple[Tensor, Tensor]:
    """(shift, scale), float32 [size] each, for (x + shift) * scale; the identity when `path` is None."""
    if path is None:
        return torch.zeros(size), torch.ones(size)
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    return _row(lines, "<AddShift>", size, path), _row(lines, "<Rescale>", size, path)


def _row(lines: list[str], tag: str, size: int, path: str) -> Tensor:
    for line, values in pairwise(lines):
        fields = values.split()
        if line.startswith(tag) and fields[:1] == ["<LearnRateCoef>"]:
            numbers = [float(field) for field in fields[3:-1]]
            if len(numbers) != size:
                raise CmvnError(f"{path}: {tag} has {len(numbers)} values, the features have {size}")
            return torch.tensor(numbers)
    raise CmvnError(f"{path}: no {tag} row")
