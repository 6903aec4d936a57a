"""Sends a folder of recordings to running servers and prints what it took, as one line of JSON.

    python -m benchmarks.load_client HOST:PORT[,HOST:PORT] FOLDER [--in-flight 64 --processes 1 --speakers]
    python -m benchmarks.load_client SERVER FOLDER --sdk

A process of its own, as clients are. The clock starts when every client process is connected and runs until
the last answer: files are read, sent and their answers parsed within it. With --sdk it is one call of
AutoModelVLLM.generate, and the server reads the files as the SDK's own services do: see LocalModel.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np

from benchmarks import processor, workload
from tandem import AutoModelVLLM, Client, RecognizeOptions
from tandem.errors import TandemError


@dataclass(frozen=True, slots=True)
class Load:
    """What to send: files of `folder`, `in_flight` at a time, from `processes` processes together.

    Files go to the `servers` by turns.
    """

    servers: tuple[str, ...]
    folder: str
    in_flight: int = 64
    processes: int = 1
    speakers: bool = False
    sdk: bool = False
    limit: int = 0
    """Files at most; 0 is all."""
    segment: float = 0.0
    """Cut speech into so many seconds, whatever its pauses; 0 cuts at pauses."""
    texts: str = ""
    """File for the texts of all segments, by name of the recording, as JSON."""

    def files(self) -> list[Path]:
        found = sorted(Path(self.folder).glob("*.wav"))
        return found[: self.limit or None]

    def options(self) -> RecognizeOptions:
        """Of every call."""
        if not self.segment:
            return RecognizeOptions(speakers=self.speakers)
        # With a pause that is never reached, only max_segment ends a segment.
        return RecognizeOptions(
            speakers=self.speakers,
            dynamic_silence=False,
            fixed_silence=self.segment,
            max_segment=self.segment,
        )


@dataclass(slots=True)
class Share:
    """What one client process did: clock times, seconds, and sums over its recordings."""

    started: float = 0.0
    ended: float = 0.0
    audio: float = 0.0
    processor: float = 0.0
    characters: int = 0
    segments: int = 0
    words: int = 0
    answered: int = 0
    latencies: list[float] = field(default_factory=list)
    stages: dict[str, float] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    texts: dict[str, list[str]] = field(default_factory=dict)


def _client(load: Load, number: int, barrier: Barrier) -> Share:
    files = load.files()[number :: load.processes]
    options = load.options()
    share, timings = Share(), []
    in_flight = max(1, load.in_flight // load.processes)
    with contextlib.ExitStack() as resources:
        clients = [resources.enter_context(Client(server)) for server in load.servers]
        pool = resources.enter_context(ThreadPoolExecutor(in_flight))
        for client in clients:
            client.capabilities()
        barrier.wait()
        share.started, before = time.time(), processor.seconds([os.getpid()])

        def recognize(index: int, file: Path) -> None:
            began = time.perf_counter()
            client = clients[(number + index) % len(clients)]
            try:
                transcript = client.recognize(file.read_bytes(), options, timeout=600)
            except TandemError as error:
                share.errors.append(f"{file.name}: {error}")
                return
            share.latencies.append(time.perf_counter() - began)
            share.answered += 1
            share.audio += transcript.duration
            share.characters += len(transcript.text)
            share.segments += len(transcript.segments)
            share.words += sum(len(segment.words) for segment in transcript.segments)
            if load.texts:
                share.texts[file.name] = [segment.text for segment in transcript.segments]
            timings.append(asdict(transcript.timing))

        list(pool.map(recognize, range(len(files)), files))
        share.ended, share.processor = time.time(), processor.seconds([os.getpid()]) - before
    share.stages = total(timings)
    return share


class LocalModel(AutoModelVLLM):
    """The SDK as it is with services of its own, which read files themselves; here they are `server`."""

    @property
    def is_local(self) -> bool:
        return True


def by_sdk(load: Load) -> Share:
    """All files in one call; no latencies, for the call returns them together."""
    share = Share()
    with LocalModel(server=load.servers[0]) as model:
        model.servers = tuple(load.servers)
        share.started, before = time.time(), processor.seconds([os.getpid()])
        results = model.generate(load.files(), spk=load.speakers, batch_size=load.in_flight, on_error="skip")
        share.ended, share.processor = time.time(), processor.seconds([os.getpid()]) - before
    done = {result["key"] for result in results}
    share.audio = sum(wav_seconds(file) for file in load.files() if file.stem in done)
    share.characters = sum(len(result["text"]) for result in results)
    share.words = sum(len(result.get("timestamps", ())) for result in results)
    share.answered = len(results)
    share.errors = [f"{file.name}: skipped" for file in load.files() if file.stem not in done]
    return share


def wav_seconds(file: Path) -> float:
    """Of a file as benchmarks.workload writes them."""
    return (file.stat().st_size - 44) / (2 * workload.RATE)


def total(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """The sum of each column."""
    return {name: sum(row[name] for row in rows) for name in rows[0]} if rows else {}


def run(load: Load) -> dict[str, object]:
    """Run all client processes; seconds unless named otherwise."""
    if load.sdk:
        return summary(load, [by_sdk(load)])
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, context.Pool(load.processes) as pool:
        barrier = manager.Barrier(load.processes)
        shares = pool.starmap(_client, [(load, number, barrier) for number in range(load.processes)], 1)
    if load.texts:
        texts = {name: found for share in shares for name, found in share.texts.items()}
        Path(load.texts).write_text(json.dumps(texts), encoding="utf-8")
    return summary(load, shares)


def summary(load: Load, shares: Sequence[Share]) -> dict[str, object]:
    wall = max(share.ended for share in shares) - min(share.started for share in shares)
    audio = sum(share.audio for share in shares)
    latencies = [value for share in shares for value in share.latencies]
    errors = [error for share in shares for error in share.errors]
    return {
        **asdict(load),
        "wall": wall,
        "audio": audio,
        "rtfx": audio / wall,
        "files": sum(share.answered for share in shares),
        "failed": len(errors),
        "errors": errors[:3],
        "latency_p50": float(np.median(latencies)) if latencies else None,
        "latency_p95": float(np.percentile(latencies, 95)) if latencies else None,
        "segments": sum(share.segments for share in shares),
        "words": sum(share.words for share in shares),
        "characters": sum(share.characters for share in shares),
        "client_processor": sum(share.processor for share in shares),
        "stages": total([share.stages for share in shares if share.stages]),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("servers", type=lambda text: tuple(text.split(",")))
    parser.add_argument("folder")
    parser.add_argument("--in-flight", type=int, default=64, help="recordings at a time, of all processes")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--limit", type=int, default=0, help="files at most; 0 is all")
    parser.add_argument("--segment", type=float, default=0.0, help="seconds of each; 0 cuts at pauses")
    parser.add_argument("--texts", default="", help="file for texts of segments, as JSON")
    parser.add_argument("--speakers", action="store_true")
    parser.add_argument("--sdk", action="store_true")
    result = run(Load(**vars(parser.parse_args())))
    print(json.dumps(result), flush=True)
    return 1 if result["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
