"""What the encoder's cache saves where audio comes again, and costs where it does not.

    python -m benchmarks.repeated_audio [--model models/demo] [--segments 24] [--seconds 10]

Sends distinct segments to an encoder process one after another, then the same ones again, with the cache and
without. Processor time is the encoder's, so that other work on the machine counts little.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc.aio
import numpy as np

from benchmarks import processor
from benchmarks.stage_load import encode
from benchmarks.workload import RATE, speech
from encoder_service.batcher import Encoded
from encoder_service.encoding_cache import EncodingCache
from encoder_service.messages import CompactCtc, EncodedAudio, EncodeItem, KeptCtc, StageTimes
from tandem.encoder.v1 import encoder_pb2_grpc
from tandem.launcher import spawn, wait_ready
from tandem.rpc.channels import channel_options
from tandem.rpc.tensors import WireTensor

FRAMES_PER_SECOND = 16.67
"""Of the published models, like the widths below."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one segment: median seconds of a call, and processor seconds of the encoder."""

    call: float
    cpu: float


def segments(count: int, seconds: float, seed: int) -> list[bytes]:
    """Stretches of speech with noise of one bit, so that no two are equal."""
    size, rng = round(seconds * RATE), np.random.default_rng(seed)
    source = np.resize(speech(), count * size)
    noisy = source ^ rng.integers(0, 2, len(source), dtype=np.int16)
    return [noisy[start : start + size].tobytes() for start in range(0, len(noisy), size)]


async def passes(address: str, pid: int, sent: Sequence[Sequence[bytes]]) -> list[Cost]:
    """The cost of a segment in each list of them."""
    costs = []
    async with grpc.aio.insecure_channel(address, options=channel_options()) as channel:
        stub: encoder_pb2_grpc.EncoderServiceAsyncStub = encoder_pb2_grpc.EncoderServiceStub(channel)
        for pieces in sent:
            calls, used = [], processor.seconds([pid])
            for pcm in pieces:
                started = time.perf_counter()
                await encode(stub, pcm)
                calls.append(time.perf_counter() - started)
            used = processor.seconds([pid]) - used
            costs.append(Cost(statistics.median(calls), used / len(pieces)))
    return costs


def measure(model: Path, mib: int, sent: Sequence[Sequence[bytes]]) -> list[Cost]:
    with tempfile.TemporaryDirectory(prefix="tandem-cache-") as directory:
        address = f"unix:{directory}/encoder.sock"
        flags = ["--model", str(model), "--listen", address, "--embedding-cache-mib", str(mib)]
        flags += ["--speaker-model", "none", "--max-wait-ms", "0"]
        tier = spawn("encoder", "encoder_service", flags, address, Path(directory))
        try:
            wait_ready([tier], timeout=120)
            return asyncio.run(passes(address, tier.process.pid, sent))
        finally:
            tier.end(grace=10)


def miss_seconds(pieces: Sequence[bytes]) -> float:
    """Processor time that one new segment costs for the cache alone: its digest, and a copy of its result."""
    frames = round(FRAMES_PER_SECOND * len(pieces[0]) / (2 * RATE))
    batch = np.ones((2 * frames, 512), np.float32)
    states = KeptCtc(batch[:frames].astype(np.float16), batch[:frames, 0])
    posteriors = batch[:frames, :16]
    compact = CompactCtc(posteriors.view(np.int32), posteriors, batch[:frames, 0], batch[:frames, 1], 2, 0)
    embeds = WireTensor.of(batch[: frames // 8])
    times = StageTimes(0.0, 0.0, 0.0, 0.0)
    audio = EncodedAudio(frames, frames // 8, embeds, compact, None, None, times, 1, kept=states)

    async def answer(item: EncodeItem) -> Encoded:
        return Encoded(audio, 0.0)

    async def ask_all() -> float:
        items = [EncodeItem(np.frombuffer(pcm, np.int16)) for pcm in pieces]
        cache = EncodingCache(answer, "", 2**30)
        started = time.process_time()
        for item in items:
            await cache.encode(item)
        return (time.process_time() - started) / len(pieces)

    return asyncio.run(ask_all())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=Path("models/demo"))
    parser.add_argument("--segments", type=int, default=24)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--mib", type=int, default=256)
    options = parser.parse_args()
    warm, first = (segments(options.segments, options.seconds, seed) for seed in (0, 1))
    print("| cache | call ms | again | ratio | encoder CPU ms | again | ratio |")
    print("| --- " * 7 + "|")
    for mib in (0, options.mib):
        _, new, again = measure(options.model, mib, [warm, first, first])
        print(
            f"| {mib} MiB | {new.call * 1000:.1f} | {again.call * 1000:.1f} | {new.call / again.call:.1f} "
            f"| {new.cpu * 1000:.1f} | {again.cpu * 1000:.1f} | {new.cpu / again.cpu:.1f} |",
            flush=True,
        )
    print(f"the cache's own part of a new segment: {miss_seconds(first) * 1000:.2f} ms of processor time")


if __name__ == "__main__":
    main()
