"""What drafts gain: tokens for each forward pass, and time with and without them, side by side.

    python -m benchmarks.speculative --engine vllm --count 7            # the demo model on recordings
    python -m benchmarks.speculative --engine vllm --scripted 0.05 0.2  # 0.6 B, drafts with 5 and 20 % errors

Two engines are loaded, one without speculation. Each round gives both the same requests, so many at a time;
which engine begins changes from round to round. Ratios compare times of one round. Passes are counted for
each request, the prompt's included: N tokens of which A were accepted drafts take N - A passes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import drafted_requests, processor, scripted_model
from benchmarks.drafted_requests import Drafted
from decoder_service.engines.base import Engine, FinishReason, GenerationRequest, Prompt, Sampling
from decoder_service.engines.settings import EngineSettings
from decoder_service.service import create_engine, warm_up
from decoder_service.weights import language_model
from tandem.rpc.tensors import WireTensor

Answers = list[tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One engine's round: seconds for all and for each, what it said, draft tokens fed and accepted.

    `processor` is seconds of all processes, those of the engine that waits included. `tokens` counts those
    that end an answer: they take a pass too. `misses` counts answers that are not the scripted ones.
    """

    wall: float
    processor: float
    latencies: list[float]
    answers: Answers
    tokens: int
    drafted: int
    accepted: int
    misses: int


@dataclass(frozen=True, slots=True)
class Case:
    """Requests of one kind."""

    name: str
    requests: list[Drafted]


def generation(request: Drafted, salt: int) -> GenerationRequest:
    """`salt` changes an embedding a little: no prefix cache may know the prompt from an earlier round."""
    embeds = request.embeds.copy()
    embeds[0] *= 1 + 0.01 * salt
    prompt = Prompt((request.prefix, WireTensor.of(embeds), request.suffix))
    sampling = Sampling(request.max_tokens, ignore_eos=request.ignore_eos)
    return GenerationRequest("speculative", prompt, sampling, final_only=True, draft=request.draft)


async def measure(engine: Engine, requests: Sequence[Drafted], at_once: int, salt: int) -> Outcome:
    """Answer all requests, `at_once` of them at any time."""
    waiting = [(number, generation(request, salt)) for number, request in enumerate(requests)][::-1]
    answers: Answers = [()] * len(requests)
    latencies: list[float] = []
    ended = 0

    async def worker() -> None:
        nonlocal ended
        while waiting:
            number, request = waiting.pop()
            begun = time.perf_counter()
            async for delta in engine.generate(request):
                answers[number] += delta.token_ids
                ended += delta.finish is FinishReason.STOP
            latencies.append(time.perf_counter() - begun)

    processes = [os.getpid(), *processor.below(os.getpid())]
    used = processor.seconds(processes)
    before, begun = engine.load().drafts, time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(at_once)))
    wall, after = time.perf_counter() - begun, engine.load().drafts
    scripts = zip(requests, answers, strict=True)
    return Outcome(
        wall,
        processor.seconds(processes) - used,
        latencies,
        answers,
        tokens=sum(map(len, answers)) + ended,
        drafted=after.drafted - before.drafted,
        accepted=after.accepted - before.accepted,
        misses=sum(request.answer not in (None, answer) for request, answer in scripts),
    )


async def compare(
    engines: Sequence[Engine], case: Case, at_once: int, rounds: int
) -> tuple[list[Outcome], list[Outcome]]:
    """Outcomes of each round without and with drafts; two requests for each at once, and eight at least."""
    wanted = min(len(case.requests), max(8, 2 * at_once))
    found: tuple[list[Outcome], list[Outcome]] = ([], [])
    for turn in range(rounds + 1):
        begin = turn * wanted % len(case.requests)
        requests = [*case.requests[begin:], *case.requests[:begin]][:wanted]
        for which in (0, 1) if turn % 2 else (1, 0):
            outcome = await measure(engines[which], requests, at_once, turn)
            if turn:  # the first round is a warm-up
                found[which].append(outcome)
    return found


def report(case: Case, at_once: int, plain: Sequence[Outcome], drafted: Sequence[Outcome]) -> str:
    """One row of the table."""

    def latency(outcomes: Sequence[Outcome]) -> float:
        return 1000 * statistics.median(value for outcome in outcomes for value in outcome.latencies)

    def throughput(outcomes: Sequence[Outcome]) -> float:
        return statistics.median(outcome.tokens / outcome.wall for outcome in outcomes)

    def cost(outcomes: Sequence[Outcome]) -> float:
        return 1000 * statistics.median(outcome.processor / len(outcome.answers) for outcome in outcomes)

    tokens, accepted = sum(o.tokens for o in drafted), sum(o.accepted for o in drafted)
    faster = statistics.median(a.wall / b.wall for a, b in zip(plain, drafted, strict=True))
    pairs = [
        pair for a, b in zip(plain, drafted, strict=True) for pair in zip(a.answers, b.answers, strict=True)
    ]
    equal = sum(a == b for a, b in pairs)
    share = accepted / max(1, sum(o.drafted for o in drafted))
    return (
        f"| {case.name} | {at_once} | {tokens / (tokens - accepted):.2f} | {share:.0%} "
        f"| {latency(plain):.1f} | {latency(drafted):.1f} | {latency(plain) / latency(drafted):.2f} "
        f"| {throughput(plain):,.0f} | {throughput(drafted):,.0f} | {faster:.2f} "
        f"| {cost(plain):.1f} | {cost(drafted):.1f} | {equal} of {len(pairs)} |"
    )


HEADER = (
    "| requests | at once | tokens per pass | drafts accepted | latency ms, plain | drafted | ratio "
    "| tokens/s, plain | drafted | ratio | processor ms a request, plain | drafted | equal answers |\n|"
    + " --- |"
    * 13
)


async def run(model: Path, cases: Sequence[Case], options: argparse.Namespace) -> None:
    engines = []
    for count in (0, options.count):
        settings = EngineSettings(
            model,
            device=options.device,
            dtype=options.dtype,
            max_model_len=1024,
            max_num_seqs=max(options.at_once),
            speculative_tokens=count,
            gpu_memory_utilization=options.gpu_memory_utilization,
        )
        engines.append(create_engine(options.engine, settings))
        begun = time.perf_counter()
        await engines[-1].start()
        await warm_up(engines[-1])
        print(f"engine with {count} draft tokens ready after {time.perf_counter() - begun:.0f} s", flush=True)
    info = engines[1].info
    print(f"\n{info.engine} {info.engine_version}, {info.dtype}, up to {options.count} draft tokens a step\n")
    print(HEADER, flush=True)
    for case in cases:
        for at_once in options.at_once:
            plain, drafted = await compare(engines, case, at_once, options.rounds)
            print(report(case, at_once, plain, drafted), flush=True)
            if misses := sum(outcome.misses for outcome in (*plain, *drafted)):
                print(f"{misses} answers are not the scripted ones", flush=True)
    for engine in engines:
        await engine.close()


def recorded(options: argparse.Namespace) -> Iterator[Case]:
    for group in options.groups:
        kept = options.saved / f"{group}.npz" if options.saved else None
        if kept is not None and kept.is_file():
            yield Case(group, drafted_requests.load(kept))
            continue
        requests = drafted_requests.prepare(options.model, group)
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            drafted_requests.save(kept, requests)
        yield Case(group, requests)


def scripted(options: argparse.Namespace, directory: Path) -> tuple[Path, list[Case]]:
    changes = {"num_hidden_layers": options.layers} if options.layers else {}
    scripted_model.write(directory, changes)
    config = scripted_model.QWEN3_600M
    vocab, hidden = int(str(config["vocab_size"])), int(str(config["hidden_size"]))
    count = 4 * max(options.at_once)
    return directory, [
        Case(f"{error:.0%} errors", scripted_model.requests(vocab, hidden, count, error))
        for error in options.scripted
    ]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", choices=("vllm", "transformers"), default="transformers")
    parser.add_argument("--count", type=int, default=7, help="draft tokens verified in a step")
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", type=Path, default=Path("models/demo"))
    parser.add_argument("--groups", nargs="+", choices=("clean", "hard"), default=["clean", "hard"])
    parser.add_argument(
        "--saved", type=Path, help="folder to keep encoded recordings in, and to take them from"
    )
    parser.add_argument("--scripted", type=float, nargs="+", metavar="ERROR", help="instead of recordings")
    parser.add_argument("--layers", type=int, help="of the scripted model, 28 when unset")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", choices=("auto", "bf16", "fp32"), default="auto")
    parser.add_argument("--gpu-memory-utilization", type=float, default=0.4, help="of each of two engines")
    return parser.parse_args(arguments)


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory(prefix="tandem-speculative-") as directory:
        os.environ.setdefault("TANDEM_CACHE", directory)
        if options.scripted:
            model, cases = scripted(options, Path(directory) / "model")
        else:
            model, cases = language_model(options.model).directory, list(recorded(options))
        asyncio.run(run(model, cases, options))


if __name__ == "__main__":
    main()
