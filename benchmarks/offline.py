"""Throughput of SDK, gRPC and REST side by side on the same recordings, and where the time goes.

RTFx is seconds of audio per second of wall time, with reading, sending and parsing. SDK and server have
services of their own on the same machine; every round runs all variants, each time beginning with another,
and the ratios compare variants of one round. CPU is what all processes used, which other work on the machine
changes little. Run it as `python -m benchmarks.offline [--engine vllm]`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import httpx

from benchmarks import processor
from benchmarks.stack import encode_everything
from tandem import AutoModelVLLM, Client, RecognizeOptions
from tandem.launcher import private_stack
from tandem.local import EngineOptions, resolve
from tandem.results import Timing, Transcript

ROOT = Path(__file__).resolve().parents[1]
FILES = [
    ROOT / "examples" / "meeting.flac",
    ROOT / "tests" / "data" / "audio" / "dialogue_2spk.flac",
    ROOT / "tests" / "data" / "audio" / "meeting_4spk.flac",
]
STAGES = ("audio_decode", "vad", "encode_queue", "encode", "decode", "align", "speakers")
TARGET = 0.90

Variant = tuple[str, bool]
"""What carries the recordings, and whether speakers are told apart."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of wall time, and of the processors in all processes, this one included."""

    wall: float
    cpu: float


Costs = dict[Variant, list[Cost]]
"""One for each round."""


def cpu_seconds() -> float:
    """Of this process and every process under it that runs now."""
    return processor.seconds([os.getpid(), *processor.below(os.getpid())])


@dataclass(slots=True)
class Bench:
    """The running parts; `transcripts` of the last gRPC run, by whether speakers were asked for."""

    model: AutoModelVLLM
    client: Client
    url: str
    files: Sequence[Path]
    in_flight: int
    transcripts: dict[bool, list[Transcript]]

    def run(self, variant: Variant) -> Cost:
        """What all files cost."""
        name, speakers = variant
        cpu, started = cpu_seconds(), time.perf_counter()
        {"sdk": self._sdk, "grpc": self._grpc, "rest": self._rest}[name](speakers)
        return Cost(time.perf_counter() - started, cpu_seconds() - cpu)

    def _sdk(self, speakers: bool) -> None:
        self.model.generate(self.files, spk=speakers, batch_size=self.in_flight)

    def _grpc(self, speakers: bool) -> None:
        call = partial(self.client.recognize, options=RecognizeOptions(speakers=speakers), timeout=3600)
        with ThreadPoolExecutor(self.in_flight) as pool:
            self.transcripts[speakers] = list(pool.map(call, self.files))

    def _rest(self, speakers: bool) -> None:
        form = {"spk": str(speakers).lower()}
        with httpx.Client(timeout=3600) as http, ThreadPoolExecutor(self.in_flight) as pool:

            def send(file: Path) -> None:
                answer = http.post(f"{self.url}/asr", files={"file": file.read_bytes()}, data=form)
                answer.raise_for_status()

            list(pool.map(send, self.files))


@contextlib.contextmanager
def running(options: argparse.Namespace) -> Iterator[Bench]:
    """Services for the SDK and services for the protocols, both warm."""
    engine = EngineOptions(
        model=options.model,
        device=options.device,
        engine=options.engine,
        gpu_memory_utilization=options.gpu_memory_utilization,
    )
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with (
        AutoModelVLLM(
            options.model,
            device=options.device,
            engine=options.engine,
            gpu_memory_utilization=options.gpu_memory_utilization,
            gateways=1,  # as many as the protocols have
        ) as model,
        private_stack(
            resolve(engine.model),
            engine=engine.engine,
            encoder_args=engine.encoder_args(),
            decoder_args=engine.decoder_args(),
            http_port=port,
        ) as stack,
        Client(stack.address) as client,
    ):
        bench = Bench(model, client, f"http://127.0.0.1:{port}", options.files[:1], options.concurrency, {})
        for variant in variants(options):
            bench.run(variant)
        bench.files = [file for _ in range(options.copies) for file in options.files]
        yield bench


def variants(options: argparse.Namespace) -> list[Variant]:
    modes = [False] if options.no_speakers else [False, True]
    return [(name, speakers) for speakers in modes for name in ("sdk", "grpc", "rest")]


def measure(bench: Bench, order: Sequence[Variant], rounds: int) -> Costs:
    """Every round begins with another variant."""
    times: Costs = {variant: [] for variant in order}
    for number in range(rounds):
        shift = number % len(order)
        for variant in [*order[shift:], *order[:shift]]:
            times[variant].append(bench.run(variant))
            shown = f"{variant[0]}{' with speakers' if variant[1] else ''}"
            print(f"round {number + 1}/{rounds} {shown}: {times[variant][-1].wall:.2f} s", file=sys.stderr)
    return times


def ratio(times: Costs, of: Variant, to: Variant) -> float:
    """Throughput of one variant as a share of another's: the median over the rounds."""
    return statistics.median(base.wall / own.wall for own, base in zip(times[of], times[to], strict=True))


def report(times: Costs, audio: float, line: Callable[[str], None]) -> None:
    line(
        f"{'variant':<18}{'RTFx':>8}{'lowest':>9}{'highest':>9}{'of SDK':>9}{'of plain':>10}{'CPU ms/s':>10}"
    )
    for variant, costs in times.items():
        name, speakers = variant
        speeds = [audio / cost.wall for cost in costs]
        plain = f"{ratio(times, variant, (name, False)):.0%}" if speakers else ""
        cpu = 1000 * statistics.median(cost.cpu for cost in costs) / audio
        line(
            f"{name + (' + speakers' if speakers else ''):<18}{statistics.median(speeds):>8.1f}"
            f"{min(speeds):>9.1f}{max(speeds):>9.1f}{ratio(times, variant, ('sdk', speakers)):>9.0%}"
            f"{plain:>10}{cpu:>10.2f}"
        )
    worst = min(ratio(times, key, ("sdk", key[1])) for key in times if key[0] != "sdk")
    verdict = "reached" if worst >= TARGET else "MISSED"
    line(f"service at least {TARGET:.0%} of the SDK: {verdict} ({worst:.0%})")


def stages(transcripts: dict[bool, list[Transcript]]) -> dict[bool, dict[str, float]]:
    """Milliseconds per second of audio and stage; stages of several segments overlap in time."""
    table = {}
    for speakers, items in transcripts.items():
        audio = sum(item.duration for item in items)
        table[speakers] = {
            field.name: 1000 * sum(getattr(item.timing, field.name) for item in items) / audio
            for field in fields(Timing)
            if field.name in STAGES
        }
    return table


def report_stages(table: dict[bool, dict[str, float]], line: Callable[[str], None]) -> None:
    line("")
    line("stage (ms per second of audio, summed over segments that run side by side)")
    names = {False: "plain", True: "+ speakers"}
    line(" " * 22 + "".join(f"{names[speakers]:>12}" for speakers in table))
    for stage in STAGES:
        line(f"{stage:<22}" + "".join(f"{table[speakers][stage]:>12.2f}" for speakers in table))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--engine", choices=("auto", "vllm", "transformers"), default="auto")
    parser.add_argument("--device")
    parser.add_argument("--gpu-memory-utilization", type=float, default=0.4, help="of each of two decoders")
    parser.add_argument("--files", type=Path, nargs="+", default=FILES)
    parser.add_argument("--copies", type=int, default=2, help="how often each file is sent in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--concurrency", type=int, default=8, help="files in flight")
    parser.add_argument("--no-speakers", action="store_true")
    parser.add_argument("--json", type=Path, help="write the figures to a file")
    return parser.parse_args(arguments)


def main() -> None:
    options = parse()
    encode_everything()
    with running(options) as bench:
        times = measure(bench, variants(options), options.rounds)
    audio = sum(item.duration for item in bench.transcripts[False])
    table = stages(bench.transcripts)
    print(f"{len(bench.files)} recordings, {audio:.0f} s of audio, {options.concurrency} in flight, ", end="")
    print(f"{options.rounds} rounds, engine {options.engine}")
    report(times, audio, print)
    report_stages(table, print)
    if options.json:
        record = {
            "audio_seconds": audio,
            "seconds": {
                f"{name}{'+speakers' if speakers else ''}": v for (name, speakers), v in times.items()
            },
            "stages": {("speakers" if speakers else "plain"): row for speakers, row in table.items()},
        }
        options.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
