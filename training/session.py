"""Everything a training run holds, built from a corpus, and its checkpoint on disk."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Queue
from threading import Thread

import torch
from tokenizers import Tokenizer

from tandem.checkpoint import WEIGHTS_FILE, read_tensors
from training.augment import CONDITIONS
from training.bank import build_bank
from training.batches import JOINED_FRAMES, SINGLE_FRAMES, Batch, Mix, Sampler
from training.corpus import Corpus
from training.model import Store, TrainingModel, gather
from training.optim import FlatOptimizer, Hyper
from training.score import DevScorer
from training.shape import DemoShape, nano_config
from training.step import Stepper
from training.tables import build_tables
from training.units import LLM_DIR, RANKS_FILE, copy_units, load_ctc_units, train_units


@dataclass
class Session:
    """A model with its data on one device. `share` is the part of the planned time already used."""

    model: TrainingModel
    optimizer: FlatOptimizer
    stepper: Stepper
    sampler: Sampler
    units: Path
    step: int = 0
    seconds: float = 0.0

    def save(self, path: Path) -> None:
        state = {
            "shape": asdict(self.model.shape),
            "optimizer": self.optimizer.state(),
            "average": self.optimizer.tensors(self.optimizer.ema),
            "step": self.step,
            "seconds": self.seconds,
        }
        temporary = path.with_suffix(".tmp")
        torch.save(state, temporary)
        temporary.replace(path)

    def load(self, path: Path) -> None:
        state = torch.load(path, map_location=self.optimizer.master.device, weights_only=True)
        self.optimizer.load(state["optimizer"])
        self.step, self.seconds = int(state["step"]), float(state["seconds"])


def say(begin: float, text: str) -> None:
    print(f"[{time.time() - begin:6.1f} s] {text}", flush=True)


def build_session(
    corpus: Corpus,
    shape: DemoShape,
    units: Path,
    device: torch.device,
    budget: int,
    hyper: Hyper,
    dropout: float = 1.0,
    init: Path | None = None,
) -> Session:
    """Trains the tokenizers if `units` is empty, makes features and tables, initialises the networks.

    `init` is an exported model of this shape to go on from; its tokenizers are taken over.
    """
    begin = time.time()
    if init is not None:
        copy_units(init, units)
    if not (units / RANKS_FILE).exists():
        train_units(corpus.texts, shape.ctc_ranks, shape.llm_vocab, units)
        say(begin, "tokenizers trained")
    bank = build_bank(corpus, CONDITIONS, nano_config(shape).frontend, device)
    say(
        begin,
        f"{len(corpus)} utterances, {corpus.hours:.1f} h; {len(bank.frames) / 360000:.1f} h of features",
    )
    tables = build_tables(corpus.texts, units)
    say(begin, f"{len(tables.llm_flat) / 1e6:.1f} million token ids")
    sampler = Sampler(bank, tables, budget, shape.downsample, seed=int(begin))
    store = Store.of(bank.frames, tables)
    torch.manual_seed(1)
    model = TrainingModel(shape, 0.05 * dropout, 0.1 * dropout).to(device)
    if init is None:
        fold(model, sampler, store)
    else:
        load_exported(model, init)
    low = torch.bfloat16 if device.type == "cuda" else torch.float32
    model.cast(low)
    optimizer = FlatOptimizer(model, low, hyper)
    return Session(model, optimizer, Stepper(model, optimizer, store, shape.ctc_ranks), sampler, units)


def load_exported(model: TrainingModel, directory: Path) -> None:
    """Fills the networks from an exported checkpoint; the mid-encoder head starts anew."""
    tensors = {name: value.float() for name, value in read_tensors(directory / WEIGHTS_FILE).items()}
    llm = {name: value for name, value in tensors.items() if name.startswith("llm.model.")}
    model.llm.load_state_dict({name.removeprefix("llm."): value for name, value in llm.items()})
    model.nano.load_state_dict({n: value for n, value in tensors.items() if not n.startswith("llm.")})


def fold(model: TrainingModel, sampler: Sampler, store: Store) -> None:
    """Initialises the input norm from a few batches."""
    batch = sampler.draw(Mix((1.0, 1.0, 1.0, 1.0), 160, 0.0))
    spec = torch.from_numpy(batch.spec).to(store.frames.device)
    inputs = gather(store, spec, batch.bucket, model.shape.downsample, None)
    model.fold_normalisation(inputs.features, inputs.lengths)


def dev_scorer(corpus: Corpus, shape: DemoShape, units: Path, device: torch.device, budget: int) -> DevScorer:
    bank = build_bank(corpus, CONDITIONS[:1], nano_config(shape).frontend, device)
    tables = build_tables(corpus.texts, units)
    longer = (*SINGLE_FRAMES, *(frames for frames, _ in JOINED_FRAMES))
    batches = Sampler(bank, tables, budget, shape.downsample, 0, longer).sweep()
    print(f"scoring {sum(len(rows) for _, rows in batches)} of {len(corpus)} utterances", flush=True)
    tokenizer = Tokenizer.from_file(str(units / LLM_DIR / "tokenizer.json"))
    store = Store.of(bank.frames, tables)
    return DevScorer(store, batches, corpus.texts, load_ctc_units(units / RANKS_FILE), tokenizer)


def prefetch(sampler: Sampler, mixes: list[Mix], depth: int = 6) -> Iterator[Batch]:
    """Batches drawn by a thread; `mixes[0]` is read for each draw and may be replaced by the caller."""
    queue: Queue[Batch] = Queue(depth)

    def work() -> None:
        while True:
            queue.put(sampler.draw(mixes[0]))

    Thread(target=work, daemon=True).start()
    while True:
        yield queue.get()


def one_of_each(sampler: Sampler) -> list[Batch]:
    """A batch per bucket shape, for capturing graphs."""
    even = Mix((1.0, 1.0, 1.0, 1.0), 10**6, 0.0)
    out = [
        sampler._single(b, m, even) for b, m in zip(sampler.singles, sampler._members, strict=True) if len(m)
    ]
    return [sampler._join(b, even) for b in reversed(sampler.joined)] + out[::-1]
