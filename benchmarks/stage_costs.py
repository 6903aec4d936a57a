"""Measures what each stage costs on this machine and writes the file that `tandem plan --costs` reads.

    python -m benchmarks.stage_costs --out tandem/plan/costs/NAME.json
        [--model M] [--engine vllm] [--in-flight 1 8 32 128] [--streams 16]

Starts the three tiers. Gateway: processor time for whole recordings and for single segments. Encoder and
decoder: closed loops of real segments, one for each --in-flight. Live: streams at the pace of a microphone.
docs/scaling.md describes the file.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
import itertools
import json
import os
import platform
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import nnls

from benchmarks import processor, streaming
from benchmarks.stack import encode_everything
from benchmarks.stage_load import Clock, TierLoad
from gateway.audio.decode import decode
from tandem import AsyncClient, RecognizeOptions
from tandem.launcher import Addresses, Stack, StackConfig
from tandem.local import resolve
from tandem.plan.cost_file import FORMAT
from tandem.plan.curve import Curve
from tandem.streaming_client import StreamOptions
from tandem.waves import to_wav
from tests.support.metrics import Samples, scrape, value
from tests.support.ports import free_port

ROOT = Path(__file__).resolve().parents[1]
FILES = [
    ROOT / "examples" / "meeting.flac",
    ROOT / "tests" / "data" / "audio" / "dialogue_2spk.flac",
    ROOT / "tests" / "data" / "audio" / "meeting_4spk.flac",
]
RATE = 16_000
GATEWAY_CORES = 1.0
"""Of one gateway's own process: Python runs one thread at a time."""

Tree = dict[str, Any]


@dataclass(slots=True)
class Services:
    """The running tiers and where their metrics are."""

    stack: Stack
    ports: dict[str, int]

    def pid(self, tier: str) -> int:
        return next(item.process.pid for item in self.stack.tiers if item.name == tier)

    def clock(self, tier: str) -> Clock:
        """On a GPU the wall's. On a CPU the tier's own, so that other work on the machine counts less."""
        if gpu():
            return time.perf_counter
        return partial(processor.seconds, [self.pid(tier), *processor.below(self.pid(tier))])

    def read(self) -> Reading:
        own = self.pid("gateway")
        return Reading(
            processor.seconds([own]),
            processor.seconds(processor.below(own)),
            {tier: scrape(port) for tier, port in self.ports.items()},
        )


@dataclass(frozen=True, slots=True)
class Reading:
    """Counters at one moment."""

    process: float
    workers: float
    samples: dict[str, Samples]

    def since(self, before: Reading, tier: str, name: str, **labels: str) -> float:
        """What a counter has gained."""
        return value(self.samples[tier], name, **labels) - value(before.samples[tier], name, **labels)

    def decoded(self, before: Reading) -> float:
        """Requests that the decoder has answered."""
        return self.since(before, "decoder", "tandem_decoder_stage_seconds_count", stage="generate")


@contextlib.contextmanager
def services(options: argparse.Namespace) -> Iterator[Services]:
    """Ready, for segments that are sent again and again."""
    encode_everything()
    with tempfile.TemporaryDirectory(prefix="tandem-costs-") as directory:
        root = Path(directory)
        ports = {tier: free_port() for tier in ("gateway", "encoder", "decoder")}
        metrics = {tier: ["--metrics-port", str(port)] for tier, port in ports.items()}
        config = StackConfig(
            resolve(options.model),
            Addresses.unix(root),
            hub=options.hub,
            engine=options.engine,
            gateway_args=metrics["gateway"],
            encoder_args=[*metrics["encoder"], *shlex.split(options.encoder_args)],
            decoder_args=[*metrics["decoder"], *shlex.split(options.decoder_args)],
            log_dir=root,
        )
        with Stack(config) as stack:
            yield Services(stack, ports)


async def recognize(target: str, recordings: Sequence[bytes], in_flight: int) -> None:
    gate = asyncio.Semaphore(in_flight)
    async with AsyncClient(target) as client:

        async def one(audio: bytes) -> None:
            async with gate:
                await client.recognize(audio, RecognizeOptions(), timeout=3600)

        await asyncio.gather(*map(one, recordings))


async def cut(target: str, files: Sequence[Path], longest: float) -> list[bytes]:
    """The segments of the recordings, as 16-bit samples at 16 kHz, in pieces of at most so many seconds."""
    pieces: list[bytes] = []
    async with AsyncClient(target) as client:
        for file in files:
            samples = np.rint(decode(file.read_bytes()).channel() * 32767).astype("<i2")
            for segment in (await client.recognize(file, timeout=3600)).segments:
                end = round(segment.end * RATE)
                for begin in range(round(segment.start * RATE), end, round(longest * RATE)):
                    pieces.append(samples[begin : min(end, begin + round(longest * RATE))].tobytes())
    return pieces


def mean_seconds(segments: Sequence[bytes]) -> float:
    return sum(map(len, segments)) / len(segments) / (2 * RATE)


def offline(running: Services, segments: Sequence[bytes], copies: int) -> tuple[Tree, Tree]:
    """Costs of the gateway without live audio, and what the recordings are made of."""
    whole = [file.read_bytes() for file in FILES] * copies
    single = [to_wav(np.frombuffer(pcm, "<i2"), RATE) for pcm in segments] * copies
    readings = [running.read()]
    for recordings in (whole, single):
        asyncio.run(recognize(running.stack.address, recordings, in_flight=8))
        readings.append(running.read())
    runs = list(itertools.pairwise(readings))
    audio = [after.since(before, "gateway", "tandem_gateway_audio_seconds_total") for before, after in runs]
    work = np.array([audio, [len(whole), len(single)]]).T
    process, _ = nnls(work, np.array([after.process - before.process for before, after in runs]))
    workers, _ = nnls(work, np.array([after.workers - before.workers for before, after in runs]))
    before, after = runs[0]
    spoken = after.since(before, "encoder", "tandem_encoder_audio_seconds_total")
    decoded = after.decoded(before)
    gateway = {
        "process_per_audio_second": process[0],
        "process_per_request": process[1],
        "worker_per_audio_second": workers[0],
        "worker_per_request": workers[1],
        "cores": GATEWAY_CORES,
    }
    speech = {
        "segment_seconds": spoken / decoded,
        "segment_tokens": after.since(before, "decoder", "tandem_decoder_tokens_total") / decoded,
        "speech_share": spoken / audio[0],
    }
    return gateway, speech


def live(running: Services, streams: int) -> tuple[float, Tree]:
    """Processor seconds of the gateway, and work for the other tiers, in a second of one stream."""
    before = running.read()
    result = streaming.measure(
        streaming.Load((running.stack.address,), str(FILES[0]), StreamOptions(), streams)
    )
    after = running.read()
    if result.failed:
        raise RuntimeError(f"{result.failed} of {streams} streams failed: use fewer --streams")
    length = len(decode(FILES[0].read_bytes()).channel()) / RATE + streaming.TRAILING_SILENCE
    seconds = streams * length
    encoded = after.since(before, "encoder", "tandem_encoder_audio_seconds_total")
    jobs = after.since(before, "encoder", "tandem_encoder_stage_seconds_count", stage="queue")
    return (after.process - before.process) / seconds, {
        "encoder_requests": jobs / seconds,
        "encoder_audio_seconds": encoded / seconds,
        "decoder_requests": after.decoded(before) / seconds,
        "decoder_tokens": after.since(before, "decoder", "tandem_decoder_tokens_total") / seconds,
    }


def measure(options: argparse.Namespace) -> Tree:
    """The whole file."""
    with services(options) as running:
        segments = asyncio.run(cut(running.stack.address, FILES, options.longest))
        gateway, speech = offline(running, segments, options.copies)
        load = TierLoad(segments, options.seconds)
        at = running.stack.config.addresses
        encoder = asyncio.run(load.encoder(at.encoder, options.in_flight, running.clock("encoder")))
        tokens = speech["segment_tokens"] / speech["segment_seconds"]
        decoder = asyncio.run(
            load.decoder(at.decoder, at.encoder, options.in_flight, tokens, running.clock("decoder"))
        )
        gateway["process_per_stream_second"], streams = live(running, options.streams)
    tree = {
        "gateway": gateway,
        "encoder": {"gpus": int(bool(gpu())), "curve": _points(encoder, "audio_seconds_per_second")},
        "decoder": {"gpus": options.gpus * bool(gpu()), "curve": _points(decoder, "tokens_per_second")},
        "speech": speech,
        "live": streams,
    }
    return {"format": FORMAT, "about": about(options), **_rounded(tree)}


def about(options: argparse.Namespace) -> Tree:
    """Where the figures come from."""
    return {
        "machine": gpu() or f"{_processor()}, {os.cpu_count()} cores",
        "model": options.model,
        "engine": options.engine,
        "date": datetime.date.today().isoformat(),
        "command": f"python -m benchmarks.stage_costs {shlex.join(sys.argv[1:])}",
        "clock": "wall" if gpu() else "processor time of the tier",
        "threads": os.environ.get("OMP_NUM_THREADS", ""),
    }


def gpu() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _points(curve: Curve, unit: str) -> list[Tree]:
    return [{"in_flight": int(jobs), unit: rate} for jobs, rate in curve.points]


def _rounded(tree: Any) -> Any:
    """Four significant digits: more were not measured."""
    if isinstance(tree, dict):
        return {name: _rounded(item) for name, item in tree.items()}
    if isinstance(tree, list):
        return [_rounded(item) for item in tree]
    return float(f"{tree:.4g}") if isinstance(tree, float) else tree


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="demo")
    parser.add_argument("--hub", choices=("hf", "ms"), default="hf")
    parser.add_argument("--engine", choices=("auto", "vllm", "transformers"), default="auto")
    parser.add_argument("--encoder-args", default="", help="more flags for the encoder, as one string")
    parser.add_argument("--decoder-args", default="", help="more flags for the decoder, as one string")
    parser.add_argument("--gpus", type=int, default=1, help="of the decoder, where there are any")
    parser.add_argument("--in-flight", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--longest", type=float, default=60.0, help="seconds of a segment; more is cut")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each closed loop")
    parser.add_argument("--copies", type=int, default=4, help="how often the recordings are sent")
    parser.add_argument("--streams", type=int, default=4, help="live streams at a time")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_flags(parser)
    parser.add_argument("--out", type=Path, help="unset prints the file")
    options = parser.parse_args()
    text = json.dumps(measure(options), indent=2) + "\n"
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
