"""FunASR's engine, AutoModelVLLM, on a folder of recordings: rows of benchmarks.passes as lines of JSON.

    python -m benchmarks.funasr_peer MODEL FOLDER [--device cuda:0 --gpu-share 0.8]

It has no voice detection of its own and asks for segments, so it gets those that Tandem's gateway would cut,
as arrays, all in one call. Reading files and finding speech are not part of its time; they are of ours. Its
answers cannot be forced to a length: each gets the mean budget of the set, which random weights use up.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import processor, published, workload
from benchmarks.gpu_use import gpu_mib
from benchmarks.passes import Row
from gateway.audio.decode import decode
from gateway.audio.types import FloatArray, to_float
from gateway.vad.fsmn import FsmnVad
from gateway.vad.segmenter import segment

_VAD = workload.ROOT / "models" / "vad"
_WARM_UP = 16
_SECONDS_PER_EMBEDDING = 0.48


@dataclass(slots=True)
class Clock:
    """Around the engine's call of vLLM: when it began and ended, and the tokens of its answers."""

    began: float = 0.0
    ended: float = 0.0
    tokens: list[int] = field(default_factory=list)

    def around(self, generate: Callable[..., Any]) -> Callable[..., Any]:
        """`generate` of vllm.LLM, noted here."""

        def noted(*arguments: Any, **options: Any) -> Any:
            self.began = time.perf_counter()
            outputs = generate(*arguments, **options)
            self.ended = time.perf_counter()
            self.tokens = [len(output.outputs[0].token_ids) for output in outputs]
            return outputs

        return noted


def speech_of(file: Path) -> list[FloatArray]:
    """Samples of each segment of speech."""
    samples = to_float(decode(file.read_bytes()).channel())
    return [samples[found.samples()] for found in segment(FsmnVad(_VAD), samples)]


def segments(folder: Path) -> tuple[list[FloatArray], float]:
    """Of all files in order, and the seconds of audio of the files themselves."""
    files = sorted(folder.glob("*.wav"))
    with ProcessPoolExecutor(min(len(files), os.cpu_count() or 1)) as pool:
        found = [part for parts in pool.map(speech_of, files) for part in parts]
    return found, sum((file.stat().st_size - 44) / (2 * workload.RATE) for file in files)


def budget(parts: Sequence[FloatArray], tokens_per_embedding: float) -> int:
    """Tokens that a segment of the mean length gets."""
    mean = float(np.mean([len(part) for part in parts])) / workload.RATE
    return max(1, round(tokens_per_embedding * mean / _SECONDS_PER_EMBEDDING))


def measured(
    recognize: Callable[[Sequence[FloatArray]], list[Any]], parts: Sequence[FloatArray], clock: Clock
) -> Row:
    """One call with all segments, watched. `audio` of the row is still to be set to that of the files."""
    own = [os.getpid(), *processor.below(os.getpid())]
    before, began = processor.seconds(own), time.perf_counter()
    results = recognize(parts)
    wall = time.perf_counter() - began
    row = Row("FunASR AutoModelVLLM", 0.0, wall)
    row.processor = {"funasr": round(processor.seconds(own) - before, 2)}
    held = gpu_mib()
    row.gpu_mib = {"funasr": sum(held.get(process, 0) for process in own)}
    row.stages = {
        "encode": round(clock.began - began, 2),
        "decode": round(clock.ended - clock.began, 2),
        "align": round(began + wall - clock.ended, 2),
    }
    row.detail = {
        "segments": len(parts),
        "speech": round(sum(len(part) for part in parts) / workload.RATE, 1),
        "tokens": sum(clock.tokens),
        "characters": sum(len(result["text"]) for result in results),
        "timed": sum("timestamps" in result for result in results),
    }
    return row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cuda:0", help="of its audio encoder")
    parser.add_argument("--gpu-share", type=float, default=0.8, help="of the GPU's memory, for its vLLM")
    parser.add_argument("--tokens-per-embedding", type=float, default=published.TOKENS_PER_EMBEDDING)
    options = parser.parse_args()
    began = time.perf_counter()
    parts, audio = segments(options.folder)
    found = time.perf_counter() - began

    from funasr.auto.auto_model_vllm import AutoModelVLLM  # not a dependency: slow, and only here

    model = AutoModelVLLM(
        model=str(options.model), device=options.device, gpu_memory_utilization=options.gpu_share
    )
    ready, clock = time.perf_counter() - began - found, Clock()
    llm = model._engine.vllm_engine
    llm.generate = clock.around(llm.generate)
    tokens = budget(parts, options.tokens_per_embedding)
    recognize = partial(model.generate, max_new_tokens=tokens)
    # Other samples than those measured: vLLM keeps the cache of prompts it has seen.
    recognize([part * np.float32(0.9) for part in parts[:_WARM_UP]])
    row = measured(recognize, parts, clock)
    row.audio = audio
    row.detail |= {"segmentation_s": round(found, 2), "start_s": round(ready, 2), "max_new_tokens": tokens}
    print(json.dumps(asdict(row)), flush=True)


if __name__ == "__main__":
    main()
