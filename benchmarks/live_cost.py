"""What the processors do for one second of one live stream, process by process: the GPU's part left out.

As benchmarks.host_cost, for live audio: paced clients send frames of 100 ms of a meeting, each from another
place. `loop` is the thread with the event loop; a gateway process holds fewer streams than 1000 divided by
that many milliseconds. Run it as

    python -m benchmarks.live_cost [--streams 16] [--seconds 30] [--py-spy DIR]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import random_checkpoint
from benchmarks.host_cost import ROOT, SOURCE, Cpu, cpu_of, recorded, tiers
from benchmarks.streaming import FRAME, METRICS_PORT, RATE, encoded_seconds
from benchmarks.tier_hop import LLM_WIDTH, PUBLISHED_WIDTH
from gateway.audio.decode import decode
from tandem.live_events import Final, Partial
from tandem.streaming_client import LiveStream, StreamOptions

_CLIENT_PROCESSES = 2


async def play(target: str, begin: float, seconds: float) -> tuple[int, int]:
    """One stream of the meeting from `begin` on, paced; how many partials and finals came back."""
    samples = decode(SOURCE.read_bytes()).channel()
    pcm = np.roll(np.rint(samples * 32767).astype("<i2"), -int(begin * RATE))[: int(seconds * RATE)]
    partials = finals = 0
    loop = asyncio.get_running_loop()
    async with LiveStream(target, StreamOptions()) as live:

        async def send() -> None:
            start = loop.time()
            for first in range(0, len(pcm), FRAME):
                await asyncio.sleep(max(0.0, start + (first + FRAME) / RATE - loop.time()))
                await live.send(pcm[first : first + FRAME].tobytes())
            live.end()

        sending = asyncio.create_task(send())
        async for event in live:
            partials += isinstance(event, Partial)
            finals += isinstance(event, Final)
        await sending
    return partials, finals


async def _together(target: str, seconds: float, begins: Sequence[float]) -> list[tuple[int, int]]:
    return await asyncio.gather(*(play(target, begin, seconds) for begin in begins))


def _process(target: str, seconds: float, begins: Sequence[float]) -> list[tuple[int, int]]:
    return asyncio.run(_together(target, seconds, begins))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--engine", choices=("instant", "vllm", "transformers"), default="instant")
    parser.add_argument("--gateway-args", default="")
    parser.add_argument("--py-spy", type=Path, help="directory for the stacks that held the GIL")
    options = parser.parse_args()
    begins = [13.0 * index for index in range(options.streams)]
    shares = [begins[first::_CLIENT_PROCESSES] for first in range(min(_CLIENT_PROCESSES, len(begins)))]
    total = options.streams * options.seconds
    with tempfile.TemporaryDirectory(prefix="tandem-cost-") as directory:
        model = random_checkpoint.write(
            Path(directory) / "model", ROOT / "models" / "demo", dict(PUBLISHED_WIDTH), dict(LLM_WIDTH)
        )
        with tiers(model, options) as running, ProcessPoolExecutor(len(shares)) as pool:
            target = running[-1].address
            list(pool.map(partial(_process, target, 2.0), [[0.0]] * len(shares)))
            before = {tier.name: cpu_of(tier.process.pid) for tier in running}
            encoded = encoded_seconds([METRICS_PORT])
            with recorded(running, options.py_spy):
                parts = pool.map(partial(_process, target, options.seconds), shares)
                heard = [stream for part in parts for stream in part]
            encoded = encoded_seconds([METRICS_PORT]) - encoded
            used = {tier.name: cpu_of(tier.process.pid) - before[tier.name] for tier in running}
    partials, finals = (sum(column) / total for column in zip(*heard, strict=True))
    print(f"{options.streams} streams of {options.seconds:.0f} s, load {os.getloadavg()[0]:.1f}: ", end="")
    print(
        f"{partials:.2f} partials, {finals:.3f} finals, {encoded / total:.1f} s encoded for each second; ",
        end="",
    )
    print("CPU ms per stream and second")
    print(f"  {'':<10}{'loop':>9}{'process':>9}{'children':>9}")
    for name, cpu in used.items():
        _row(name, cpu, total)


def _row(name: str, cpu: Cpu, total: float) -> None:
    cells = (1000 * value / total for value in (cpu.loop, cpu.process, cpu.children))
    print(f"  {name:<10}" + "".join(f"{cell:>9.2f}" for cell in cells))


if __name__ == "__main__":
    main()
