"""What encoder and decoder processes spend on one segment under load, and how long their hop takes.

    python -m benchmarks.segment_cost [--segments 600] [--in-flight 200] [--seconds 10]
    python -m benchmarks.segment_cost --together 8 --answer-after 0.15

The tiers are the ones that are served, but their networks answer at once (benchmarks.instant), so that
receiving, batching, sending and answering are all there is. This process asks as a gateway does, word times
included. Processor time; `loop` is the thread with the event loop, which no process can be faster than. The
hop is what the encoder waits for the decoder beyond the decoder's own time. With --together so many segments
come at a time, as those of one recording do, and the next ones when they are answered.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks import random_checkpoint
from benchmarks.host_cost import ROOT, cpu_of
from benchmarks.metrics import counters, decoder_seconds
from benchmarks.stack import METRICS_PORTS
from benchmarks.tier_hop import LLM_WIDTH, PUBLISHED_WIDTH
from gateway.backends.encoder import EncoderBackend
from gateway.backends.segment_call import SegmentRequest, SegmentResult
from gateway.text.budget import output_budget
from gateway.text.posteriors import CtcPosteriors
from gateway.text.prompt import Prompt
from tandem.launcher import Addresses, Tier, spawn, wait_ready

Pcm = npt.NDArray[np.int16]

RATE = 16_000
PROMPT = Prompt("", "", (1,) * 18, (1,) * 5)
TARGETS = np.arange(1, 31)
"""As many CTC tokens as ten seconds of speech have: their exact probabilities are asked for."""
AS_ON_A_GPU = (
    *("--max-queued-seconds", "24000"),
    *("--max-batch-seconds", "480"),
    *("--max-batch-items", "256"),
)
WIDTHS = PUBLISHED_WIDTH | {"ctc_decoder_conf.llm_dim": 512}


def name_targets(tokens: tuple[int, ...], posteriors: CtcPosteriors) -> npt.NDArray[np.int64]:
    return TARGETS


async def drive(address: str, segments: Sequence[Pcm], in_flight: int, together: int) -> list[SegmentResult]:
    """All segments, so many at a time; or in groups, one after the other."""
    backend, gate = EncoderBackend(address), asyncio.Semaphore(in_flight)
    await backend.model_info(60)
    numbers, size = range(len(segments)), together or len(segments)

    async def one(number: int) -> SegmentResult:
        samples = segments[number]
        request = SegmentRequest(
            samples, PROMPT, output_budget(len(samples) / RATE), str(number), name_targets=name_targets
        )
        async with gate:
            return await backend.transcribe(request, ctc=True)

    try:
        groups = [numbers[first : first + size] for first in numbers[::size]]
        return [result for group in groups for result in await asyncio.gather(*map(one, group))]
    finally:
        await backend.close()


@contextlib.contextmanager
def running(root: Path, answer_after: float = 0.0) -> Iterator[dict[str, Tier]]:
    """Decoder and encoder processes, ready; the decoder takes about so many seconds for an answer."""
    model = random_checkpoint.write(root / "model", ROOT / "models" / "demo", dict(WIDTHS), dict(LLM_WIDTH))
    at = Addresses.unix(root)
    flags = {
        "decoder": [
            *("--answer-after", str(answer_after), "--metrics-port", str(METRICS_PORTS["decoder"])),
            *("--listen", at.decoder, "--log-level", "WARNING"),
        ],
        "encoder": ["--listen", at.encoder, "--decoder", at.decoder, "--speaker-model", "none", *AS_ON_A_GPU],
    }
    addresses = {"decoder": at.decoder, "encoder": at.encoder}
    tiers = {
        name: spawn(name, "benchmarks.instant", [name, "--model", str(model), *own], addresses[name], root)
        for name, own in flags.items()
    }
    try:
        wait_ready(list(tiers.values()), timeout=120)
        yield tiers
    finally:
        for tier in tiers.values():
            tier.end(grace=10)


def measure(tiers: dict[str, Tier], segments: Sequence[Pcm], in_flight: int, together: int) -> str:
    """A row of the table."""
    pids = {name: tier.process.pid for name, tier in tiers.items()} | {"client": os.getpid()}
    port = METRICS_PORTS["decoder"]
    before, busy = {name: cpu_of(pid) for name, pid in pids.items()}, decoder_seconds(counters([port]))
    began = time.perf_counter()
    results = asyncio.run(drive(tiers["encoder"].address, segments, in_flight, together))
    wall = time.perf_counter() - began
    used = [cpu_of(pid) - before[name] for name, pid in pids.items()]
    each = 1000 / len(results)
    cells = [f"{cpu.loop * each:.2f} | {cpu.process * each:.2f}" for cpu in used]
    busy = decoder_seconds(counters([port])) - busy
    hop = sum(result.decode for result in results) - busy
    return f"| {' | '.join([*cells, f'{hop * each:.2f}', f'{wall:.2f}'])} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--segments", type=int, default=600, help="of each round")
    parser.add_argument("--in-flight", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each segment")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--together", type=int, default=0, help="segments that come at a time; 0: --in-flight"
    )
    parser.add_argument("--answer-after", type=float, default=0.0, help="seconds that the decoder takes")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    shape = (options.segments, round(options.seconds * RATE))
    names = " | ".join(f"{name} loop ms | process" for name in ("decoder", "encoder", "client"))
    with (
        tempfile.TemporaryDirectory(prefix="tandem-cost-") as directory,
        running(Path(directory), options.answer_after) as tiers,
    ):
        how = (options.in_flight, options.together)
        measure(tiers, list(rng.integers(-3000, 3000, shape, dtype=np.int16)), *how)
        print(f"| {names} | hop ms | wall s |\n{'| --- ' * 8}|")
        for _ in range(options.rounds):
            segments = list(rng.integers(-3000, 3000, shape, dtype=np.int16))
            print(measure(tiers, segments, *how), flush=True)


if __name__ == "__main__":
    main()
