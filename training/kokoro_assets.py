"""Compact files for bulk synthesis: int8 weights in two parts, voices in float16, phonemised sentences."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from . import kokoro_torch_weights

Array = npt.NDArray[Any]
HELD_OUT = ("am_puck", "bf_lily", "af_river", "bm_lewis")
LONGEST = 400  # tokens; also the rows kept of a voice


def pack_weights(onnx: Path, folder: Path) -> None:
    """Writes weights-1.npz and weights-2.npz of about equal size."""
    packed = kokoro_torch_weights.pack(onnx)
    flat = {f"{name}|{part}": value for name, item in packed.items() for part, value in item.items()}
    halves: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    sizes = [0, 0]
    for name in sorted(flat, key=lambda n: -flat[n].nbytes):
        k = int(sizes[1] < sizes[0])
        halves[k][name] = flat[name]
        sizes[k] += flat[name].nbytes
    for k, half in enumerate(halves, start=1):
        np.savez_compressed(folder / f"weights-{k}.npz", **half)


def load_weights(folder: Path) -> dict[str, Tensor]:
    """float32 tensors under the model's parameter names."""
    packed: dict[str, dict[str, kokoro_torch_weights.Array]] = {}
    for path in sorted(folder.glob("weights-*.npz")):
        with np.load(path) as archive:
            for key in archive.files:
                name, _, part = key.rpartition("|")
                packed.setdefault(name, {})[part] = archive[key]
    arrays = kokoro_torch_weights.state_dict(packed)
    return {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items()}


def read_voice(path: Path) -> Array:
    """A voice file of kokoro-js: float32 [510, 256], one style per token count."""
    return np.fromfile(path, dtype="<f4").reshape(-1, 256)


def pack_voices(folder: Path, out: Path) -> None:
    """The English voices that may be trained on, as float16."""
    names = sorted(p.stem for p in folder.glob("[ab][fm]_*.bin") if p.stem not in HELD_OUT)
    rows: dict[str, Any] = {n: read_voice(folder / f"{n}.bin")[:LONGEST].astype(np.float16) for n in names}
    np.savez_compressed(out, **rows)


def load_voices(path: Path) -> dict[str, Tensor]:
    """float32 [400, 256] per voice; refuses a file with a held-out voice in it."""
    with np.load(path) as archive:
        voices = {name: torch.from_numpy(archive[name].astype(np.float32)) for name in archive.files}
    if set(voices) & set(HELD_OUT):
        raise ValueError(f"{path} holds evaluation voices: {sorted(set(voices) & set(HELD_OUT))}")
    return voices


def token_ids(phonemes: str, vocabulary: dict[str, int]) -> list[int]:
    """Kokoro's token ids; characters it does not know are left out, as its own front end does."""
    return [vocabulary[c] for c in phonemes if c in vocabulary]


def load_vocabulary(path: Path) -> dict[str, int]:
    data = json.loads(path.read_text("utf-8"))
    vocabulary: dict[str, int] = data.get("vocab", data)
    return vocabulary


def write_phonemes(path: Path, rows: Iterable[tuple[str, list[int], bool]]) -> int:
    """(text, token ids, British or not) -> one npz; returns how many rows were kept."""
    texts: list[str] = []
    tokens: list[Array] = []
    british: list[bool] = []
    for text, ids, gb in rows:
        if 2 < len(ids) < LONGEST:
            texts.append(text)
            tokens.append(np.array(ids, dtype=np.uint8))
            british.append(gb)
    sizes = np.array([len(t) for t in tokens], dtype=np.uint16)
    blob = np.frombuffer("\n".join(texts).encode(), dtype=np.uint8)
    joined = np.concatenate(tokens)
    np.savez_compressed(path, tokens=joined, sizes=sizes, british=np.array(british), text=blob)
    return len(texts)


def read_phonemes(path: Path) -> list[tuple[str, Array, bool]]:
    with np.load(path) as archive:
        ends = np.cumsum(archive["sizes"].astype(np.int64))
        rows = np.split(archive["tokens"], ends[:-1])
        texts = archive["text"].tobytes().decode().split("\n")
        return list(zip(texts, rows, archive["british"].tolist(), strict=True))
