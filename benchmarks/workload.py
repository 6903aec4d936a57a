"""Recordings for throughput benchmarks: any number of WAV files of real speech, no two alike.

    python -m benchmarks.workload OUT [--files 184 --seconds 11541 --shortest 44 --longest 90 --seed 0]

The defaults have the size of the set that FunASR's guide reports on. Files are stretches of the repository's
own recordings, joined end to end; noise of one bit, another for each seed, makes every file new to any cache.
"""

from __future__ import annotations

import argparse
import os
import wave
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

RATE = 16_000
ROOT = Path(__file__).resolve().parents[1]
SOURCES = (
    ROOT / "tests" / "data" / "audio" / "meeting_4spk.flac",
    ROOT / "tests" / "data" / "audio" / "dialogue_2spk.flac",
    ROOT / "examples" / "meeting.flac",
)

Pcm = npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Workload:
    """How many files, and seconds: of all together, of the shortest and of the longest."""

    files: int = 184
    seconds: float = 11_541.0
    shortest: float = 44.0
    longest: float = 90.0
    seed: int = 0

    def lengths(self) -> list[int]:
        """Samples of each file, mixed; they add up to `seconds`. Raises ValueError when they cannot."""
        mean = self.seconds / self.files
        if not self.shortest <= mean <= self.longest:
            raise ValueError(f"{self.files} files of {self.seconds} s are not within the lengths given")
        share = (mean - self.shortest) / max(self.longest - self.shortest, 1e-9)
        # The mean of x^p over 0..1 is 1 / (p + 1).
        grid = (np.arange(self.files) + 0.5) / self.files
        curve = grid ** (1 / max(share, 1e-9) - 1) if share else 0 * grid
        samples = np.rint((self.shortest + (self.longest - self.shortest) * curve) * RATE).astype(int)
        samples += (round(self.seconds * RATE) - int(samples.sum())) // self.files
        return [int(count) for count in np.random.default_rng(0).permutation(samples)]


def speech() -> Pcm:
    """The repository's recordings that are there, one after another."""
    import soundfile

    parts = [soundfile.read(path, dtype="int16")[0] for path in SOURCES if path.is_file()]
    if not parts:
        raise FileNotFoundError(f"none of {', '.join(map(str, SOURCES))} is there")
    return np.concatenate(parts)


def write(out: Path, workload: Workload) -> list[Path]:
    """Write the files into `out`; returns them in order."""
    out.mkdir(parents=True, exist_ok=True)
    source, rng = speech(), np.random.default_rng(workload.seed)
    paths, begin = [], 0
    for index, length in enumerate(workload.lengths()):
        samples = source[np.arange(begin, begin + length) % len(source)]
        noise = np.unpackbits(np.frombuffer(rng.bytes(length // 8 + 1), np.uint8))[:length]
        paths.append(out / f"{index:04d}.wav")
        write_wav(paths[-1], samples ^ noise)
        begin += length
    return paths


def write_all(folders: Sequence[Path], workloads: Sequence[Workload]) -> None:
    """Each workload into its folder, side by side."""
    with ProcessPoolExecutor(min(len(folders), os.cpu_count() or 1)) as pool:
        list(pool.map(write, folders, workloads))


def write_wav(path: Path, samples: Pcm) -> None:
    """Mono at 16 kHz."""
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, len(samples), "NONE", "not compressed"))
        file.writeframes(samples.astype("<i2").tobytes())


def as_wav(source: Path, path: Path) -> Path:
    """A recording of one channel at 16 kHz as a file that needs no decoder."""
    import soundfile

    write_wav(path, soundfile.read(source, dtype="int16")[0])
    return path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    usual = Workload()
    parser.add_argument("out", type=Path)
    parser.add_argument("--files", type=int, default=usual.files)
    parser.add_argument("--seconds", type=float, default=usual.seconds)
    parser.add_argument("--shortest", type=float, default=usual.shortest)
    parser.add_argument("--longest", type=float, default=usual.longest)
    parser.add_argument("--seed", type=int, default=0)
    options = vars(parser.parse_args())
    paths = write(options.pop("out"), Workload(**options))
    print(f"{len(paths)} files")


if __name__ == "__main__":
    main()
