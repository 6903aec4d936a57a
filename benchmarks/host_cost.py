"""What the processors do for one second of audio, process by process: the GPU's part left out.

The tiers are the ones that are served, but encoder network and language model answer at once (see
benchmarks.instant), so what is left is receiving, decoding, segmenting, sending, assembling. With --engine
vllm or transformers the decoder is a real one. `loop` is the thread with the event loop: no process can be
faster than that one. Run it as

    python -m benchmarks.host_cost [--files 184] [--engine vllm] [--py-spy DIR]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import processor, random_checkpoint, streaming, workload
from benchmarks.tier_hop import LLM_WIDTH, PUBLISHED_WIDTH
from tandem import Client
from tandem.inputs import recordings
from tandem.launcher import Addresses, Tier, spawn, wait_ready
from tandem.many import ManyOptions, transcribe_many
from tandem.sdk_results import result_dict

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "tests" / "data" / "audio" / "meeting_4spk.flac"
SECONDS = 11_541 / 184
"""Of one file on average, as in the guide's set."""
TOKENS_PER_EMBEDDING = 0.4
"""Three a second, of a checkpoint that makes 7.5 embeddings of one."""


@dataclass(frozen=True, slots=True)
class Cpu:
    """Processor seconds: of a process's first thread, of all its threads, of its children."""

    loop: float
    process: float
    children: float

    def __sub__(self, other: Cpu) -> Cpu:
        return Cpu(self.loop - other.loop, self.process - other.process, self.children - other.children)


def cpu_of(pid: int) -> Cpu:
    """What a process has used until now; this one's children are the tiers and count for themselves."""
    children = processor.below(pid) if pid != os.getpid() else ()
    threads = processor.threads([pid])
    return Cpu(threads[processor.Thread(pid, pid)], processor.seconds([pid]), processor.seconds(children))


@contextlib.contextmanager
def tiers(model: Path, options: argparse.Namespace) -> Iterator[list[Tier]]:
    """Decoder, encoder and gateway processes, in this order, ready."""
    with tempfile.TemporaryDirectory(prefix="tandem-cost-") as directory:
        root = Path(directory)
        at = Addresses.unix(root)
        decoder = ["--model", str(model), "--listen", at.decoder, "--log-level", "WARNING"]
        encoder = ["--model", str(model), "--listen", at.encoder, "--decoder", at.decoder]
        encoder += ["--metrics-port", str(streaming.METRICS_PORT)]
        gateway = ["--listen", at.gateway, "--encoder", at.encoder, "--http-port", "0"]
        gateway += ["--realtime-port", "0", "--local-files", *options.gateway_args.split()]
        module = "decoder_service"
        if options.engine == "instant":
            module, decoder = "benchmarks.instant", ["decoder", *decoder]
        else:
            forced = str(TOKENS_PER_EMBEDDING)
            decoder += ["--engine", options.engine, "--forced-tokens-per-embedding", forced]
        started: list[Tier] = []
        try:
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
    """py-spy, which must be on the PATH, on every tier while the context is open: who holds the GIL."""
    if directory is None:
        yield
        return
    directory.mkdir(parents=True, exist_ok=True)
    record = ["py-spy", "record", "--gil", "--format", "raw", "--rate", "250", "--duration", "3600"]
    spies = [
        subprocess.Popen([*record, "--pid", str(t.process.pid), "--output", str(directory / f"{t.name}.txt")])
        for t in running
    ]
    time.sleep(1)
    try:
        yield
    finally:
        for spy in spies:
            spy.send_signal(signal.SIGINT)
        for spy in spies:
            spy.wait()


def measure(way: str, running: Sequence[Tier], files: Sequence[Path], in_flight: int) -> dict[str, Cpu]:
    """What every process used for all files, and in the line printed, how long they took."""
    names = {tier.process.pid: tier.name for tier in running} | {os.getpid(): "client"}
    before = {pid: cpu_of(pid) for pid in names}
    started = time.perf_counter()
    WAYS[way](running[-1].address, files, in_flight)
    print(f"{way}: {time.perf_counter() - started:.1f} s")
    return {name: cpu_of(pid) - before[pid] for pid, name in names.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=40, help="of a minute on average; the guide has 184")
    parser.add_argument("--in-flight", type=int, default=128)
    parser.add_argument("--engine", choices=("instant", "vllm", "transformers"), default="instant")
    parser.add_argument("--ways", nargs="+", choices=tuple(WAYS), default=list(WAYS))
    parser.add_argument("--gateway-args", default="")
    parser.add_argument("--py-spy", type=Path, help="directory for the stacks that held the GIL")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tandem-cost-") as directory:
        root, seconds = Path(directory), options.files * SECONDS
        widths = dict(PUBLISHED_WIDTH), dict(LLM_WIDTH)
        model = random_checkpoint.write(root / "model", ROOT / "models" / "demo", *widths)
        # New ones for each way: the encoder keeps what it has encoded.
        files = {
            way: workload.write(root / way, workload.Workload(options.files, seconds, seed=seed))
            for seed, way in enumerate(("warm", *options.ways))
        }
        with tiers(model, options) as running:
            WAYS[options.ways[0]](running[-1].address, files["warm"][:4], 4)
            print(f"{options.files} files, {seconds:.0f} s of audio, decoder {options.engine}, ", end="")
            print(f"load {os.getloadavg()[0]:.1f}; CPU ms per second of audio")
            for way in options.ways:
                with recorded(running, options.py_spy and options.py_spy / way):
                    used = measure(way, running, files[way], options.in_flight)
                print(f"  {'':<10}{'loop':>9}{'process':>9}{'children':>9}")
                for name, cpu in used.items():
                    cells = (1000 * value / seconds for value in (cpu.loop, cpu.process, cpu.children))
                    print(f"  {name:<10}" + "".join(f"{cell:>9.3f}" for cell in cells))


if __name__ == "__main__":
    main()
