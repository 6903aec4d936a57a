"""What speakers cost a running service: the same recordings with and without them, alternating.

    python -m benchmarks.speaker_cost [--model models/demo] [--published] [--rounds 4] [--max-tokens 0]

Wall time is what users see; processor time of the three tiers is what it costs on a CPU, also while other
programs run. On a GPU, look at the wall time. --published makes a random checkpoint of the published sizes.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks import processor, published
from benchmarks.stack import encode_everything
from tandem import RecognizeOptions
from tandem.client import AsyncClient
from tandem.launcher import Addresses, Stack, StackConfig

AUDIO = Path(__file__).resolve().parents[1] / "tests" / "data" / "audio"
RECORDINGS = ("meeting_4spk.flac", "dialogue_2spk.flac")


@dataclass(frozen=True, slots=True)
class Run:
    """One pass over all recordings: seconds of audio, of wall time, of processor time, and of each stage."""

    audio: float
    wall: float
    processor: float
    speakers: int


async def one_pass(client: AsyncClient, stack: Stack, speakers: bool, max_tokens: int, copies: int) -> Run:
    options = RecognizeOptions(speakers=speakers, max_new_tokens=max_tokens or None, details=True)
    pids = [tier.process.pid for tier in stack.tiers]
    before, begun = processor.seconds(pids), time.perf_counter()
    calls = [client.recognize(AUDIO / name, options) for name in RECORDINGS * copies]
    transcripts = await asyncio.gather(*calls)
    labels = {segment.speaker for segment in transcripts[0].segments} - {None}
    return Run(
        sum(transcript.duration for transcript in transcripts),
        time.perf_counter() - begun,
        processor.seconds(pids) - before,
        len(labels),
    )


async def measure(stack: Stack, rounds: int, max_tokens: int, copies: int) -> tuple[list[Run], list[Run]]:
    """Passes without and with speakers, in turns, after one of each to warm up."""
    async with AsyncClient(stack.address) as client:
        passes = [
            await one_pass(client, stack, speakers, max_tokens, copies)
            for _ in range(rounds + 1)
            for speakers in (False, True)
        ]
    return passes[2::2], passes[3::2]


def report(name: str, off: list[Run], on: list[Run]) -> None:
    audio, wall, processor = (
        off[0].audio,
        [statistics.median(run.wall for run in runs) for runs in (off, on)],
        [statistics.median(run.processor for run in runs) for runs in (off, on)],
    )
    print("| model | RTFx off | RTFx on | kept | CPU s per audio s off | on | kept | speakers |")
    print("| --- " * 8 + "|")
    print(
        f"| {name} | {audio / wall[0]:.1f} | {audio / wall[1]:.1f} | {wall[0] / wall[1]:.1%} "
        f"| {processor[0] / audio:.4f} | {processor[1] / audio:.4f} | {processor[0] / processor[1]:.1%} "
        f"| {on[0].speakers} of 4 |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=Path("models/demo"))
    parser.add_argument("--published", action="store_true", help="random weights of the published sizes")
    parser.add_argument("--engine", default="auto", help="decoder engine")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--copies", type=int, default=1, help="recordings at once, of each")
    parser.add_argument("--max-tokens", type=int, default=0, help="tokens for each segment, 0: by its length")
    options = parser.parse_args()
    encode_everything()
    with tempfile.TemporaryDirectory() as directory:
        root, model = Path(directory), options.model
        if options.published:
            model = published.ensure(root / "model")
        config = StackConfig(str(model), Addresses.unix(root), engine=options.engine, log_dir=root)
        with Stack(config) as stack:
            off, on = asyncio.run(measure(stack, options.rounds, options.max_tokens, options.copies))
    report("published sizes" if options.published else str(options.model), off, on)


if __name__ == "__main__":
    main()
