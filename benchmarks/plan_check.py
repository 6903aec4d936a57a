"""Predicts what gateways, encoders and decoders get through together, from stage costs, and measures it.

    python -m benchmarks.plan_check [--layouts 1:1 3:1 1:2 3:2] [--costs FILE] [--share 0.05]

For a machine without a GPU. Measures the stage costs in processor time unless --costs names them. For each
layout encoders:decoders one gateway and as many processes are started; each encoder and decoder may use
--share of a core, so that they and not the cores of this machine are what is scarce. Segments are sent in a
closed loop; predicted is what tandem.plan says of such a loop.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shlex
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import processor, stage_costs
from benchmarks.stage_load import closed_loop
from tandem import AsyncClient, RecognizeOptions
from tandem.local import resolve
from tandem.plan.cost_file import StageCosts, load_costs
from tandem.plan.curve import Curve
from tandem.plan.queues import Station, closed_rate
from tandem.waves import to_wav
from tests.support.cluster import DECODER_ARGS, cluster

_WATCH, _SAVED = 0.01, 1.0


@dataclass(frozen=True, slots=True)
class Layout:
    """Replicas behind one gateway."""

    encoders: int
    decoders: int

    @classmethod
    def parse(cls, text: str) -> Layout:
        encoders, _, decoders = text.partition(":")
        return cls(int(encoders), int(decoders))


@dataclass(frozen=True, slots=True)
class Work:
    """Segments (16-bit samples at 16 kHz), and how many tokens one has on average, the end token included."""

    segments: Sequence[bytes]
    tokens: float


@dataclass(frozen=True, slots=True)
class Checked:
    """Seconds of audio per second, and how many cores of this machine all processes kept busy."""

    layout: Layout
    predicted: float
    measured: float
    cores: float

    def row(self) -> str:
        ratio = self.predicted / self.measured
        replicas = f"1 + {self.layout.encoders} + {self.layout.decoders}"
        return f"| {replicas} | {self.predicted:.1f} | {self.measured:.1f} | {ratio:.2f} | {self.cores:.1f} |"


def predict(costs: StageCosts, layout: Layout, work: Work, in_flight: int, share: float) -> float:
    """Seconds of audio per second of a closed loop of these segments, one to a request."""
    audio, cost = stage_costs.mean_seconds(work.segments), costs.gateway
    gateway = audio * cost.process_per_audio_second + cost.process_per_request
    worker = audio * cost.worker_per_audio_second + cost.worker_per_request
    one = Curve(((1.0, 1.0),))
    stations = [
        Station(one, 1, gateway),
        Station(costs.encoder.curve.scaled(share), layout.encoders, audio),
        Station(costs.decoder.curve.scaled(share), layout.decoders, work.tokens),
    ]
    if worker:
        stations.append(Station(one, 2, worker))
    return closed_rate(stations, in_flight) * audio


async def find_work(address: str, longest: float) -> Work:
    segments = await stage_costs.cut(address, stage_costs.FILES, longest)
    options = RecognizeOptions(vad=False, details=True)
    tokens = 0
    async with AsyncClient(address) as client:
        for pcm in segments:
            transcript = await client.recognize(to_wav(np.frombuffer(pcm, "<i2")), options, timeout=600)
            tokens += sum(len(segment.token_ids) + 1 for segment in transcript.segments)
    return Work(segments, tokens / len(segments))


async def drive(address: str, segments: Sequence[bytes], in_flight: int, seconds: float) -> float:
    """Seconds of audio per second through the gateway."""
    wavs = [to_wav(np.frombuffer(pcm, "<i2")) for pcm in segments]
    async with AsyncClient(address) as client:

        async def job(number: int) -> float:
            options = RecognizeOptions(vad=False)
            return (await client.recognize(wavs[number % len(wavs)], options, timeout=600)).duration

        return await closed_loop(job, in_flight, seconds)


def check(costs: StageCosts, layout: Layout, work: Work, options: argparse.Namespace) -> Checked:
    predicted = predict(costs, layout, work, options.loop, options.share)
    model = Path(resolve(options.model))
    with cluster(model, layout.encoders, layout.decoders, running=layout.encoders) as running:
        asyncio.run(drive(running.address, work.segments, 4, 1.0))  # warm, at full speed
        with contextlib.ExitStack() as limits:
            for replica in (*running.encoders, *running.decoders):
                assert replica.tier is not None
                limits.enter_context(at_most(replica.tier.process.pid, options.share))
            before, begun = _processor_seconds(), time.perf_counter()
            measured = asyncio.run(drive(running.address, work.segments, options.loop, options.run_seconds))
            cores = (_processor_seconds() - before) / (time.perf_counter() - begun)
    return Checked(layout, predicted, measured, cores)


@contextlib.contextmanager
def at_most(process: int, share: float) -> Iterator[None]:
    """Stop the process whenever it has used more than this share of a core, as a quota does."""
    over = threading.Event()

    def watch() -> None:
        begun, last, earned = processor.seconds([process]), time.perf_counter(), 0.0
        while not over.wait(_WATCH):
            now, spent = time.perf_counter(), processor.seconds([process]) - begun
            # What other programs kept it from using is not lost; an idle process does not save up for long.
            earned = min(earned + share * (now - last), spent + share * _SAVED)
            last = now
            os.kill(process, signal.SIGSTOP if spent > earned else signal.SIGCONT)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        os.kill(process, signal.SIGCONT)


def _processor_seconds() -> float:
    return processor.seconds([os.getpid(), *processor.below(os.getpid())])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    stage_costs.add_flags(parser)
    parser.set_defaults(longest=4.0, decoder_args=shlex.join(DECODER_ARGS))
    parser.add_argument("--costs", help="unset measures them first")
    parser.add_argument("--layouts", type=Layout.parse, nargs="+", default=["1:1", "3:1", "1:2", "3:2"])
    parser.add_argument("--share", type=float, default=0.05, help="of a core that an encoder or decoder gets")
    parser.add_argument("--loop", type=int, default=16, help="segments in flight")
    parser.add_argument("--run-seconds", type=float, default=40.0, help="of each layout")
    options = parser.parse_args()
    layouts = [item if isinstance(item, Layout) else Layout.parse(item) for item in options.layouts]
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "costs.json"
        if not options.costs:
            file.write_text(json.dumps(stage_costs.measure(options)), encoding="utf-8")
        costs = load_costs(options.costs or str(file))
    with stage_costs.services(options) as running:
        work = asyncio.run(find_work(running.stack.address, options.longest))
    print("| gateway + encoders + decoders | predicted | measured | predicted / measured | cores busy |")
    print("| --- | --- | --- | --- | --- |")
    for layout in layouts:
        print(check(costs, layout, work, options).row(), flush=True)


if __name__ == "__main__":
    main()
