"""What the processors do for one second of audio, process by process: the GPU's part left out.

The tiers are the ones that are served, but encoder network and language model answer at once (see
benchmarks.instant), so what is left is receiving, decoding, segmenting, sending, assembling. With --engine
vllm or transformers the decoder is a real one. `loop` is the thread with the event loop: no process can be
faster than that one. Run it as

    python -m benchmarks.host_cost [--files 184] [--py-spy DIR]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import random_checkpoint
from benchmarks.tier_hop import LLM_WIDTH, PUBLISHED_WIDTH
from gateway.audio.decode import decode
from gateway.audio.types import SAMPLE_RATE
from tandem import Client
from tandem.inputs import recordings
from tandem.launcher import Addresses, Tier, spawn, wait_ready
from tandem.many import ManyOptions, transcribe_many
from tandem.sdk_results import result_dict
from tandem.waves import to_wav

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "tests" / "data" / "audio" / "meeting_4spk.flac"
SHORTEST, LONGEST = 44.0, 81.4
"""Seconds: 184 files of these lengths are 11,541 s."""
TOKENS_PER_EMBEDDING = 0.4
"""Three a second, of a checkpoint that makes 7.5 embeddings of one."""
_TICK = os.sysconf("SC_CLK_TCK")


def write_files(directory: Path, count: int) -> tuple[list[Path], float]:
    """`count` 16-bit WAV files cut from a meeting, and their seconds together."""
    samples = decode(SOURCE.read_bytes()).channel()
    rng = np.random.default_rng(0)
    lengths = np.linspace(SHORTEST, LONGEST, count)
    rng.shuffle(lengths)
    files = []
    for index, seconds in enumerate(lengths):
        begin = int(rng.integers(0, len(samples)))
        cut = np.take(samples, range(begin, begin + int(seconds * SAMPLE_RATE)), mode="wrap")
        files.append(directory / f"{index:03}.wav")
        files[-1].write_bytes(to_wav(cut, SAMPLE_RATE))
    return files, float(lengths.sum())


@dataclass(frozen=True, slots=True)
class Cpu:
    """Processor seconds: of the process's first thread, of all its threads, of its children."""

    loop: float
    process: float
    children: float

    def __sub__(self, other: Cpu) -> Cpu:
        return Cpu(self.loop - other.loop, self.process - other.process, self.children - other.children)


def _ticks(folder: Path) -> float:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICK
    return 0.0


def _descendants(pid: int) -> Iterator[int]:
    for children in Path("/proc", str(pid)).glob("task/*/children"):
        for child in map(int, children.read_text().split()):
            yield child
            yield from _descendants(child)


def cpu_of(pid: int, *, children: bool = True) -> Cpu:
    """What a process has used until now (Linux)."""
    folder = Path("/proc", str(pid))
    below = sum(_ticks(Path("/proc", str(child))) for child in _descendants(pid)) if children else 0.0
    return Cpu(_ticks(folder / "task" / str(pid)), _ticks(folder), below)


@contextlib.contextmanager
def tiers(model: Path, options: argparse.Namespace) -> Iterator[list[Tier]]:
    """Decoder, encoder and gateway processes, in this order, ready."""
    with tempfile.TemporaryDirectory(prefix="tandem-cost-") as directory:
        root = Path(directory)
        at = Addresses.unix(root)
        decoder = ["--model", str(model), "--listen", at.decoder, "--log-level", "WARNING"]
        encoder = ["--model", str(model), "--listen", at.encoder, "--decoder", at.decoder]
        gateway = ["--listen", at.gateway, "--encoder", at.encoder, "--http-port", "0"]
        gateway += ["--realtime-port", "0", "--local-files", *options.gateway_args.split()]
        started = []
        try:
            if options.engine == "instant":
                module, decoder = "benchmarks.instant", ["decoder", *decoder]
            else:
                module, forced = "decoder_service", str(TOKENS_PER_EMBEDDING)
                decoder += ["--engine", options.engine, "--forced-tokens-per-embedding", forced]
            started.append(spawn("decoder", module, decoder, at.decoder, root))
            started.append(spawn("encoder", "benchmarks.instant", ["encoder", *encoder], at.encoder, root))
            started.append(spawn("gateway", "gateway", gateway, at.gateway, root))
            wait_ready(started, timeout=300)
            yield started
        finally:
            for tier in reversed(started):
                tier.end(grace=10)


def by_sdk(address: str, files: Sequence[Path], in_flight: int) -> None:
    options = ManyOptions(in_flight=in_flight, timeout=600, local_files=True)
    for outcome in transcribe_many(address, recordings(files), options):
        result_dict(outcome.recording.key, outcome.result(), sentences=False)


def by_grpc(address: str, files: Sequence[Path], in_flight: int) -> None:
    with Client(address) as client, ThreadPoolExecutor(in_flight) as pool:
        list(pool.map(partial(client.recognize, timeout=600), files))


WAYS: dict[str, Callable[[str, Sequence[Path], int], None]] = {"sdk": by_sdk, "grpc": by_grpc}


@contextlib.contextmanager
def recorded(running: Sequence[Tier], directory: Path | None) -> Iterator[None]:
    """py-spy on every tier while the context is open; one file of stacks each."""
    if directory is None:
        yield
        return
    directory.mkdir(parents=True, exist_ok=True)
    common = ["py-spy", "record", "--gil", "--format", "raw", "--rate", "250", "--duration", "3600"]
    spies = [
        subprocess.Popen([*common, "--pid", str(t.process.pid), "--output", str(directory / f"{t.name}.txt")])
        for t in running
    ]
    time.sleep(1)
    try:
        yield
    finally:
        for spy in spies:
            spy.send_signal(2)
        for spy in spies:
            spy.wait()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=40, help="184 is the guide's set")
    parser.add_argument("--in-flight", type=int, default=128)
    parser.add_argument("--engine", choices=("instant", "vllm", "transformers"), default="instant")
    parser.add_argument("--ways", nargs="+", choices=tuple(WAYS), default=list(WAYS))
    parser.add_argument("--gateway-args", default="")
    parser.add_argument("--py-spy", type=Path, help="directory for the stacks that held the GIL")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tandem-cost-") as directory:
        root = Path(directory)
        model = random_checkpoint.write(
            root / "model", ROOT / "models" / "demo", dict(PUBLISHED_WIDTH), dict(LLM_WIDTH)
        )
        files, seconds = write_files(root, options.files)
        with tiers(model, options) as running:
            WAYS[options.ways[0]](running[-1].address, files[:4], 4)
            names = {tier.process.pid: tier.name for tier in running} | {os.getpid(): "client"}
            print(f"{len(files)} files, {seconds:.0f} s of audio, decoder {options.engine}, ", end="")
            print(f"load {os.getloadavg()[0]:.1f}; CPU ms per second of audio")
            for way in options.ways:
                with recorded(running, options.py_spy and options.py_spy / way):
                    before = {pid: cpu_of(pid, children=pid != os.getpid()) for pid in names}
                    started = time.perf_counter()
                    WAYS[way](running[-1].address, files, options.in_flight)
                    wall = time.perf_counter() - started
                    after = {pid: cpu_of(pid, children=pid != os.getpid()) for pid in names}
                print(f"{way}: {wall:.1f} s, RTFx {seconds / wall:.0f}")
                print(f"  {'':<10}{'loop':>9}{'process':>9}{'children':>9}")
                for pid, name in names.items():
                    used = after[pid] - before[pid]
                    cells = (1000 * value / seconds for value in (used.loop, used.process, used.children))
                    print(f"  {name:<10}" + "".join(f"{cell:>9.3f}" for cell in cells))


if __name__ == "__main__":
    main()
