"""Trains the demo model against the clock: `python -m training.train --data DIR... --work DIR --minutes M`.

The schedule follows elapsed time over --total-minutes, so a run always ends with its rate near zero. A
run that is told to --resume goes on from WORK/checkpoint.pt.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from training import schedule
from training.corpus import load_corpus, split_dev
from training.export import export
from training.optim import Hyper
from training.score import DevScorer
from training.session import Session, build_session, dev_scorer, one_of_each, prefetch, say
from training.shape import DemoShape
from training.step import STATS

LOG_EVERY = 100


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, nargs="+", required=True, help="shards, or folders of shards or Opus"
    )
    parser.add_argument(
        "--eval-shard", type=Path, nargs="*", default=[], help="held-out voices, scored at the end"
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, required=True, help="of this run, set-up included")
    parser.add_argument("--total-minutes", type=float, help="of training in all runs; default: this run")
    parser.add_argument("--max-hours", type=float, default=1e9)
    parser.add_argument("--init", type=Path, help="exported model of the same shape to go on from")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--budget", type=int, default=12000, help="60 ms frames in a batch, padding included")
    parser.add_argument("--peak", type=float, default=2e-3)
    parser.add_argument("--adamw", action="store_true", help="no Muon")
    parser.add_argument("--dropout", type=float, default=1.0, help="scales every dropout rate")
    parser.add_argument("--toy", action="store_true", help="tiny networks")
    parser.add_argument(
        "--clean", action="store_true", help="short clean clips all along, to see losses reach zero"
    )
    parser.add_argument("--warm-up", type=int, default=schedule.WARM_UP_STEPS, help="steps")
    parser.add_argument("--dev", type=int, default=384)
    parser.add_argument("--eval-every", type=float, default=60.0, help="seconds")
    parser.add_argument("--max-steps", type=int, default=10**9)
    return parser.parse_args()


def main() -> None:
    args = parse()
    begin = time.time()
    device = torch.device(args.device)
    if device.type == "cuda":
        torch.cuda.set_stream(torch.cuda.Stream())  # type: ignore[no-untyped-call]
        torch.backends.cuda.matmul.allow_tf32 = True
    args.work.mkdir(parents=True, exist_ok=True)
    shape = DemoShape.toy() if args.toy else DemoShape()
    train, dev = split_dev(load_corpus(args.data, args.max_hours), args.dev)
    say(begin, "corpus loaded")
    units = args.work / "units"
    session = build_session(
        train, shape, units, device, args.budget, Hyper(muon=not args.adamw), args.dropout, args.init
    )
    scorers = {"dev": dev_scorer(dev, shape, units, device, args.budget // 2)}
    for path in args.eval_shard:
        scorers[path.stem] = dev_scorer(load_corpus([path]), shape, units, device, args.budget // 2)
    if args.resume and (args.work / "checkpoint.pt").exists():
        session.load(args.work / "checkpoint.pt")
    say(begin, "features and tables ready")
    session.stepper.prepare(one_of_each(session.sampler))
    say(begin, f"graphs ready; step {session.step}, {session.seconds:.0f} s trained before")
    loop(session, scorers["dev"], args, begin)
    finish(session, scorers, args, begin)


def loop(session: Session, scorer: DevScorer, args: argparse.Namespace, begin: float) -> None:
    """Steps until the run's minutes are spent, leaving time to score and export."""
    stop = begin + args.minutes * 60 - 12
    started, carried = time.time(), session.seconds
    total = args.total_minutes * 60 if args.total_minutes else stop - started
    last_log = last_eval = started
    mixes = [schedule.mix(carried / total)]
    heard = 0.0
    first = session.step
    for batch in prefetch(session.sampler, mixes):
        now = time.time()
        if now >= stop or session.step - first >= args.max_steps:
            break
        session.seconds = carried + now - started
        share = min(1.0, max(session.seconds / total, (session.step - first) / args.max_steps))
        session.optimizer.lr.fill_(schedule.rate(share, session.step, args.peak, args.warm_up))
        session.stepper.llm_weight.fill_(schedule.llm_weight(share))
        session.stepper.strength.fill_(0.0 if args.clean else schedule.masking(share))
        mixes[0] = schedule.mix(0.0 if args.clean else share)
        session.stepper.run(batch)
        session.step += 1
        heard += batch.seconds
        if session.step % LOG_EVERY == 0:
            log(session, share, heard / (time.time() - last_log), begin, time.time() - last_log)
            last_log, heard = time.time(), 0.0
        if time.time() - last_eval > args.eval_every:
            report(session, {"dev": scorer}, begin, with_llm=share > 0.15)
            session.save(args.work / "checkpoint.pt")
            last_log = last_eval = time.time()
            heard = 0.0


def log(session: Session, share: float, audio_rate: float, begin: float, seconds: float) -> None:
    losses = (session.stepper.stats / LOG_EVERY).tolist()
    session.stepper.stats.zero_()
    named = " ".join(f"{name} {value:.3f}" for name, value in zip(STATS, losses, strict=True))
    lr = float(session.optimizer.lr)
    say(
        begin,
        f"step {session.step} ({share:.1%}) {named} lr {lr:.2e} "
        f"{LOG_EVERY / seconds:.1f} steps/s {audio_rate:.0f} audio s/s",
    )


def report(
    session: Session, scorers: dict[str, DevScorer], begin: float, with_llm: bool, show: int = 3
) -> None:
    """Word errors of the averaged weights."""
    optimizer = session.optimizer
    live = optimizer.master.clone()
    optimizer.use(optimizer.ema)
    for name, scorer in scorers.items():
        ctc, llm = scorer.score(session.model, with_llm, show)
        say(begin, f"{name}: word error ctc {ctc:.2%} llm {llm:.2%}")
    optimizer.use(live)


def finish(session: Session, scorers: dict[str, DevScorer], args: argparse.Namespace, begin: float) -> None:
    session.save(args.work / "checkpoint.pt")
    averages = session.optimizer.tensors(session.optimizer.ema)
    export(averages, session.model.shape, session.units, args.work / "model")
    say(begin, "exported")
    report(session, scorers, begin, with_llm=True, show=6)
    say(begin, f"done at step {session.step}")


if __name__ == "__main__":
    main()
