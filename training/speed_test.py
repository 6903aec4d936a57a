"""Steps per second on made-up speech, before any data exists: `python -m training.speed_test [--profile]`."""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

from training.batches import Batch
from training.corpus import Corpus
from training.optim import Hyper
from training.session import Session, build_session, one_of_each, say
from training.shape import DemoShape
from training.units import LLM_DIR

SYLLABLES = (
    "ba",
    "ke",
    "li",
    "mo",
    "nu",
    "ra",
    "si",
    "to",
    "ve",
    "wo",
    "xi",
    "yo",
    "zu",
    "cha",
    "shi",
    "ing",
    "er",
    "al",
    "on",
)


def noise_corpus(count: int, seed: int = 0) -> Corpus:
    """Noise of 1 to 7 s with sentences of three invented words a second."""
    rng = random.Random(seed)
    words = ["".join(rng.choices(SYLLABLES, k=rng.randint(1, 4))) for _ in range(3000)]
    length = torch.tensor([int(16000 * rng.triangular(1.0, 7.0, 2.5)) for _ in range(count)])
    texts = [" ".join(rng.choices(words, k=max(1, int(n) * 5 // 32000))).capitalize() + "." for n in length]
    audio = torch.randint(-3000, 3000, (int(length.sum()),), dtype=torch.int16)
    return Corpus(audio, length.cumsum(0) - length, length, texts, ["noise"] * count)


def timed(session: Session, batch: Batch, repeats: int = 20) -> float:
    """Seconds per step of one bucket."""
    for _ in range(3):
        session.stepper.run(batch)
    torch.cuda.synchronize()
    begin = time.time()
    for _ in range(repeats):
        session.stepper.run(batch)
    torch.cuda.synchronize()
    return (time.time() - begin) / repeats


def profile(session: Session, batch: Batch) -> None:
    """The kernels of one eager step, by time."""
    run = session.stepper.run
    run(batch)
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CUDA, torch.profiler.ProfilerActivity.CPU]
    ) as p:
        for _ in range(3):
            run(batch)
        torch.cuda.synchronize()
    print(
        p.key_averages().table(sort_by="self_cuda_time_total", row_limit=45, max_name_column_width=90),
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", type=int, default=12000)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args()
    begin = time.time()
    torch.cuda.set_stream(torch.cuda.Stream())  # type: ignore[no-untyped-call]
    torch.backends.cuda.matmul.allow_tf32 = True
    with tempfile.TemporaryDirectory() as folder:
        units = Path(folder)
        session = build_session(
            noise_corpus(args.count), DemoShape(), units, torch.device("cuda"), args.budget, Hyper()
        )
        assert (units / LLM_DIR).exists()
    say(begin, f"built; {torch.cuda.memory_allocated() / 2**30:.1f} GiB")
    session.optimizer.lr.fill_(1e-4)
    session.stepper.strength.fill_(1.0)
    session.stepper.llm_weight.fill_(1.0)
    batches = one_of_each(session.sampler)
    if args.profile:
        profile(session, next(b for b in batches if b.bucket.frames == 64))
    session.stepper.prepare(batches)
    say(begin, f"captured; {torch.cuda.max_memory_reserved() / 2**30:.1f} GiB at most")
    for batch in batches:
        seconds = timed(session, batch)
        rate = batch.seconds / seconds
        say(
            begin, f"{batch.bucket}: {seconds * 1000:.1f} ms, {1 / seconds:.1f} steps/s, {rate:.0f} audio s/s"
        )
    losses: Tensor = session.stepper.stats
    say(begin, f"losses are numbers: {losses.tolist()}")


if __name__ == "__main__":
    main()
