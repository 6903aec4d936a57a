"""The encoder under a changing load, every result compared with the same segment's alone and without graphs.

    python -m benchmarks.encoder_stress [--seconds 60] [--no-speakers] [--no-graphs] [--tiny]

Segments of 0.1 to 60 s of noise, int16 or float32, each time with other parts wanted, go through the Batcher
from many callers in bursts; some callers leave. Random weights of the published sizes. Prints what differs
and exits with status 1; a device that fails ends the run. CUDA_LAUNCH_BLOCKING=1 and compute-sanitizer find
the kernel; --tiny shows on a CPU that it runs.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.encoder import PUBLISHED, RATE, TINY, Setting, Variant
from encoder_service.audio_queue import BatchLimits
from encoder_service.batcher import Batcher, BatcherConfig
from encoder_service.engine import EncoderEngine
from encoder_service.messages import CompactCtc, CtcOutput, EncodedAudio, EncodeItem
from encoder_service.waves import Samples

Array = npt.NDArray[np.float32]
EVERYTHING = EncodeItem(np.zeros(0, np.int16), CtcOutput.COMPACT, encoder_out=True, speakers=True)
BURST = 400
"""Callers at a time, at most."""


def relative(found: Array, expected: Array) -> float:
    """Norm of the difference, in norms of what is expected."""
    if found.shape != expected.shape:
        return float("inf")
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def gap(found: Array, expected: Array) -> float:
    """Mean difference of log-probabilities."""
    return float(np.abs(found - expected).mean()) if found.shape == expected.shape else float("inf")


def turn(found: Array, expected: Array) -> float:
    """One less the smallest cosine of two lists of embeddings."""
    if found.shape != expected.shape:
        return float("inf")
    sizes = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    return float(1.0 - ((found * expected).sum(1) / sizes).min())


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a result, how far it may be from the same part alone, and by which measure."""

    read: Callable[[EncodedAudio], Array | None]
    distance: Callable[[Array, Array], float]
    limit: float


def _of_compact(read: Callable[[CompactCtc], Array]) -> Callable[[EncodedAudio], Array | None]:
    return lambda result: None if result.compact is None else read(result.compact)


PARTS = {
    "embeddings": Part(lambda one: None if one.embeds is None else one.embeds.float32(), relative, 0.03),
    "states": Part(lambda one: one.encoder_out, relative, 0.03),
    "likeliest tokens": Part(_of_compact(lambda ctc: ctc.top_log_probs), gap, 0.02),
    "blanks": Part(_of_compact(lambda ctc: ctc.blank_log_probs), gap, 0.02),
    "dense posteriors": Part(lambda one: one.dense, gap, 0.02),
    "voices": Part(lambda one: None if one.speakers is None else one.speakers.embeddings, turn, 0.005),
}


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """Audio and what it becomes alone: with everything of an item, and its dense posteriors."""

    samples: npt.NDArray[np.int16]
    alone: EncodedAudio
    dense: EncodedAudio


@dataclass(slots=True)
class Tally:
    """What was seen; `seconds` of audio."""

    results: int = 0
    seconds: float = 0.0
    batches: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def compare(self, segment: Segment, item: EncodeItem, found: EncodedAudio) -> None:
        self.results += 1
        self.seconds += len(segment.samples) / RATE
        self.batches[found.batch_size] += 1
        for name, part in PARTS.items():
            ours = part.read(found)
            theirs = part.read(segment.dense if name == "dense posteriors" else segment.alone)
            if ours is None or theirs is None:
                continue
            distance = part.distance(ours, theirs)
            if not distance <= part.limit:
                self.wrong.append(
                    f"{name} of {len(segment.samples) / RATE:.2f} s in a batch of {found.batch_size} "
                    f"are {distance:.3g} from those alone ({item.samples.dtype}, {item.ctc.value})"
                )


def make_segments(engine: EncoderEngine, count: int, longest: float, speakers: bool) -> list[Segment]:
    """Segments of every order of length with their reference results, one by one."""
    generator = np.random.default_rng(11)
    segments = []
    for seconds in np.geomspace(0.1, longest, count):
        loud = generator.normal(0, 2000, int(seconds * RATE)) * generator.uniform(0.1, 1.5)
        samples = np.clip(loud, -32768, 32767).astype(np.int16)
        alone = replace(EVERYTHING, samples=samples, speakers=speakers)
        dense = EncodeItem(samples, CtcOutput.DENSE, embeds=False)
        segments.append(Segment(samples, engine.encode([alone])[0], engine.encode([dense])[0]))
    return segments


def random_item(segment: Segment, generator: np.random.Generator, speakers: bool) -> EncodeItem:
    """One of the many things a caller may want of a segment."""
    samples: Samples = segment.samples
    if generator.random() < 0.3:
        samples = np.divide(samples, 32768, dtype=np.float32)
    ctc = generator.choice(
        np.array([CtcOutput.NONE, CtcOutput.COMPACT, CtcOutput.DENSE]), p=[0.1, 0.87, 0.03]
    )
    return EncodeItem(
        samples,
        ctc,
        embeds=bool(generator.random() < 0.8),
        encoder_out=bool(generator.random() < 0.05),
        speakers=speakers and bool(generator.random() < 0.6),
        keep_ctc=bool(generator.random() < 0.3),
    )


async def load(engine: EncoderEngine, setting: Setting, segments: list[Segment], options: Options) -> Tally:
    """Bursts of callers until the time is over."""
    generator = np.random.default_rng(options.seed)
    tally, ends = Tally(), time.monotonic() + options.seconds
    async with Batcher(engine, BatcherConfig(setting.limits, max_queued_seconds=1e9)) as batcher:

        async def call(segment: Segment, item: EncodeItem, patience: float) -> None:
            try:
                found = await asyncio.wait_for(batcher.submit(item), patience)
            except TimeoutError:
                return
            await asyncio.to_thread(tally.compare, segment, item, found.audio)

        while time.monotonic() < ends and len(tally.wrong) < options.stop_after:
            # Mostly short ones, so that batches of many segments occur too.
            chosen = generator.beta(1.0, generator.uniform(0.6, 4.0), int(generator.integers(1, BURST)))
            calls = []
            for share in chosen:
                segment = segments[int(share * len(segments))]
                item = random_item(segment, generator, options.speakers)
                patience = generator.uniform(0.0, 0.1) if generator.random() < 0.05 else 120.0
                calls.append(call(segment, item, patience))
            await asyncio.gather(*calls)
            if batcher.failed.is_set():
                break
    return tally


@dataclass(frozen=True, slots=True)
class Options:
    """How long, with what, and after how many differences to stop."""

    seconds: float
    speakers: bool
    graphs: bool
    seed: int
    stop_after: int = 100


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--segments", type=int, default=40, help="different ones")
    parser.add_argument("--longest", type=float, default=60.0, help="seconds of the longest segment")
    parser.add_argument("--batch-seconds", type=float, default=480.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--no-speakers", action="store_true")
    parser.add_argument("--no-graphs", action="store_true")
    parser.add_argument("--tiny", action="store_true", help="small networks and short segments")
    given = parser.parse_args()
    options = Options(given.seconds, not given.no_speakers, not given.no_graphs, given.seed)
    device, cuda = torch.device(given.device), given.device.startswith("cuda")
    limits = BatchLimits(256, 20.0 if given.tiny else given.batch_seconds, max_spread=1.0)
    setting = Setting(TINY if given.tiny else PUBLISHED, device, limits, 0.0)
    dtype = "bfloat16" if cuda else "float32"
    began = time.monotonic()
    reference = setting.engine(Variant(dtype, graphs=False, speakers=options.speakers))
    longest = min(given.longest, 4.0) if given.tiny else given.longest
    segments = make_segments(reference, given.segments, longest, options.speakers)
    del reference
    print(f"{len(segments)} references after {time.monotonic() - began:.1f} s", flush=True)
    engine = setting.engine(Variant(dtype, graphs=options.graphs, speakers=options.speakers))
    began = time.monotonic()
    tally = asyncio.run(load(engine, setting, segments, options))
    took = time.monotonic() - began
    for line in tally.wrong[:20]:
        print(line)
    sizes = sorted(tally.batches.elements())
    print(
        f"{tally.results} results, {tally.seconds:,.0f} s of audio in {took:.1f} s; segments in a result's "
        f"batch {sizes[0]} to {sizes[-1]}, {sizes[len(sizes) // 2]} in the middle; {len(tally.wrong)} differ"
    )
    if cuda:
        free, total = torch.cuda.mem_get_info(device)
        held, most = torch.cuda.memory_reserved(device), torch.cuda.max_memory_allocated(device)
        gigabytes = tuple(f"{size / 1e9:.2f}" for size in (most, held, total - free))
        print("GB: {} allocated at most, {} reserved, {} used on the device".format(*gigabytes))
    return 1 if tally.wrong or not tally.results else 0


if __name__ == "__main__":
    sys.exit(main())
