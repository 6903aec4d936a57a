"""What voice activity detection and audio decoding cost: CPU ms for a second of audio, by stage.

    python -m benchmarks.vad [FILE] [--processes 16]

With as many processes as a machine has hardware threads it shows what a stage costs where they share cores,
as the audio workers of a busy gateway do.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gateway.audio.decode import decode
from gateway.audio.types import SAMPLE_RATE, FloatArray, to_float
from gateway.vad.detector import EndpointDetector
from gateway.vad.fbank import fbank
from gateway.vad.fsmn import FrameScores, FsmnVad
from gateway.vad.network import FsmnNetwork
from gateway.vad.segmenter import VadOptions, VadStream, offline_config, segment
from gateway.vad.weights import read_weights
from tandem.heap import keep_buffers

_ROOT = Path(__file__).resolve().parents[1]
_RECORDING = _ROOT / "tests" / "data" / "audio" / "meeting_4spk.flac"
_STEP = 60 * SAMPLE_RATE // 1000
_TOGETHER = 16
_BLOCK_FRAMES = 2000


@dataclass(frozen=True, slots=True)
class Work:
    """What is measured: a file, the directory of the VAD's weights, and how often."""

    file: Path
    vad_model: Path
    repeats: int


def _cpu_seconds(work: Callable[[], object], repeats: int) -> float:
    """Best of several runs: other processes can only make a run slower."""
    durations = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        durations.append(time.process_time() - started)
    return min(durations)


def _network(network: FsmnNetwork, features: FloatArray) -> FrameScores:
    """Scores of all frames, in blocks as long as those of a recording."""
    memory, silence = network.initial_memory(1), []
    for first in range(0, len(features) - 4, _BLOCK_FRAMES):
        block, memory = network.advance(features[None, first : first + _BLOCK_FRAMES + 4], memory)
        silence.append(block[0])
    return FrameScores(np.concatenate(silence), features[2:-2].mean(axis=1))


def _live(model: FsmnVad, samples: FloatArray) -> None:
    stream = VadStream.live(model)
    for first in range(0, len(samples), _STEP):
        stream.push(samples[first : first + _STEP])
    stream.finish()


def _together(model: FsmnVad, samples: FloatArray) -> None:
    """As many live streams as share the samples, without their endpoints."""
    parts = np.array_split(samples, _TOGETHER)
    streams = [model.stream() for _ in parts]
    for first in range(0, len(parts[0]), _STEP):
        model.push([(s, part[first : first + _STEP]) for s, part in zip(streams, parts, strict=True)])


def measure(work: Work) -> dict[str, float]:
    """CPU ms for a second of audio."""
    keep_buffers()
    data, model = work.file.read_bytes(), FsmnVad(work.vad_model)
    network = FsmnNetwork(read_weights(work.vad_model))
    samples = to_float(decode(data).channel())
    features = fbank(samples)
    scores = _network(network, features)
    config = offline_config(VadOptions())
    stages: dict[str, Callable[[], object]] = {
        "decode": lambda: decode(data),
        "features": lambda: fbank(samples),
        "network": lambda: _network(network, features),
        "endpoints": lambda: EndpointDetector(config).push(scores, last=True),
        "offline, all of it": lambda: segment(model, samples),
        "live, one stream": lambda: _live(model, samples),
        f"live, {_TOGETHER} together": lambda: _together(model, samples),
    }
    milliseconds = 1000 / (len(samples) / SAMPLE_RATE)
    return {name: milliseconds * _cpu_seconds(stage, work.repeats) for name, stage in stages.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", nargs="?", type=Path, default=_RECORDING)
    parser.add_argument("--vad-model", type=Path, default=_ROOT / "models" / "vad")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--processes", type=int, default=1)
    args = parser.parse_args()
    with ProcessPoolExecutor(args.processes) as pool:
        work = Work(args.file, args.vad_model, args.repeats)
        results = list(pool.map(measure, [work] * args.processes))
    print(f"{args.file.name}, {args.processes} processes: CPU ms for a second of audio, mean of all")
    for name in results[0]:
        print(f"{name:20}{sum(result[name] for result in results) / len(results):8.3f}")


if __name__ == "__main__":
    main()
