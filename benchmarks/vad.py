"""Speed of voice activity detection and audio decoding on one core: audio seconds per CPU second.

OMP_NUM_THREADS=1 python -m benchmarks.vad [FILE]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from gateway.audio.decode import decode
from gateway.audio.types import SAMPLE_RATE, FloatArray, to_float
from gateway.vad.fbank import fbank
from gateway.vad.fsmn import FsmnVad
from gateway.vad.segmenter import VadStream, segment

_ROOT = Path(__file__).resolve().parents[1]
_RECORDING = _ROOT / "tests" / "data" / "audio" / "meeting_4spk.flac"
_LIVE_CHUNK_MS = 60


def _cpu_seconds(work: Callable[[], object], repeats: int) -> float:
    """Best of several runs: other processes can only make a run slower."""
    durations = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        durations.append(time.process_time() - started)
    return min(durations)


def _live(model: FsmnVad, samples: FloatArray) -> None:
    stream, chunk = VadStream.live(model), _LIVE_CHUNK_MS * SAMPLE_RATE // 1000
    for first in range(0, len(samples), chunk):
        stream.push(samples[first : first + chunk])
    stream.finish()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, default=_RECORDING)
    parser.add_argument("--vad-model", type=Path, default=_ROOT / "models" / "vad")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    data, model = args.file.read_bytes(), FsmnVad(args.vad_model)
    samples = to_float(decode(data).channel())
    seconds = len(samples) / SAMPLE_RATE
    stages: dict[str, Callable[[], object]] = {
        "decode": lambda: decode(data),
        "fbank": lambda: fbank(samples),
        "vad offline": lambda: segment(model, samples),
        f"vad live, {_LIVE_CHUNK_MS} ms chunks": lambda: _live(model, samples),
    }
    print(f"{args.file.name}, {seconds:.1f} s of audio")
    for name, work in stages.items():
        print(f"{name:24} {seconds / _cpu_seconds(work, args.repeats):8.0f} audio seconds per CPU second")


if __name__ == "__main__":
    main()
