"""Hours of many-voice speech in minutes: Kokoro in PyTorch, batched, several processes on one GPU.

    python -m training.synthesize_gpu --assets DIR --phonemes FILE --out DIR --minutes M --seed N

Each shard is torch.save(dict(audio int16 [samples], offsets int64 [n + 1], text, voice)) at 16 kHz. A voice
is `name` or the blend `name*weight+name`, weight being the share of the first.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import defaultdict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.multiprocessing as mp
from torch import Tensor

from . import kokoro_torch_fused
from .kokoro_assets import Array, load_voices, load_weights, read_phonemes
from .kokoro_torch import Kokoro, Plan, batch_size
from .resample import to_16k

RATE = 16_000
TOTALS = [*range(24, 64, 8), *range(64, 160, 16), *range(160, 641, 32)]
CHUNK = 8192
PAD = RATE // 20
FLUSH_S = 6.0


@dataclass
class Shards:
    """Collects utterances and writes a shard an hour of audio, on a thread of its own."""

    folder: Path
    name: str
    hour: int = 3600 * RATE
    audio: list[Array] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    voice: list[str] = field(default_factory=list)
    pending: int = 0
    written: int = 0
    writer: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    jobs: list[Future[None]] = field(default_factory=list)

    def add(self, audio: Array, text: str, voice: str) -> None:
        self.audio.append(audio)
        self.text.append(text)
        self.voice.append(voice)
        self.pending += len(audio)
        if self.pending >= self.hour:
            self.flush()

    def flush(self) -> None:
        if not self.audio:
            return
        path = self.folder / f"{self.name}-{self.written:03d}.pt"
        self.jobs.append(self.writer.submit(_write, path, self.audio, self.text, self.voice))
        self.audio, self.text, self.voice, self.pending = [], [], [], 0
        self.written += 1

    def close(self) -> None:
        """Raises what a write raised."""
        self.flush()
        for job in self.jobs:
            job.result()
        self.writer.shutdown()


def _write(path: Path, audio: list[Array], text: list[str], voice: list[str]) -> None:
    offsets = torch.tensor([0, *np.cumsum([len(a) for a in audio]).tolist()], dtype=torch.int64)
    whole = torch.from_numpy(np.concatenate(audio))
    partial = path.with_suffix(".part")
    torch.save({"audio": whole, "offsets": offsets, "text": text, "voice": voice}, partial)
    partial.rename(path)


class Voices:
    """Draws a voice or a blend of two of the same accent, and its style for a token count."""

    def __init__(self, path: Path, seed: int, blends: float = 0.6) -> None:
        self.table = load_voices(path)
        self.random = random.Random(seed)
        self.blends = blends
        self.names = {gb: sorted(n for n in self.table if n.startswith("b") == gb) for gb in (False, True)}

    def draw(self, tokens: int, british: bool) -> tuple[str, Tensor]:
        row = tokens - 1
        first, second = self.random.sample(self.names[british], 2)
        if self.random.random() >= self.blends:
            return first, self.table[first][row]
        share = self.random.choice((0.35, 0.5, 0.65))
        return f"{first}*{share}+{second}", share * self.table[first][row] + (1 - share) * self.table[second][
            row
        ]


@dataclass(frozen=True)
class Job:
    """One planned utterance that waits for a full batch."""

    plan: Plan
    text: str
    voice: str


class Synthesiser:
    """One process's model, its waiting utterances by frame count, and its shards."""

    def __init__(self, options: argparse.Namespace, index: int) -> None:
        self.device = torch.device(options.device)
        self.seconds = options.batch_seconds
        half = self.device.type == "cuda" and not options.full_precision
        self.model = Kokoro(load_weights(options.assets), half=half).to(self.device).eval()
        self.voices = Voices(options.assets / "voices.npz", options.seed * 100 + index)
        self.random = random.Random(options.seed * 100 + index)
        self.totals = torch.tensor(TOTALS, dtype=torch.float32, device=self.device)
        self.waiting: dict[int, list[Job]] = defaultdict(list)
        self.shards = Shards(options.out, f"kokoro-s{options.seed}-p{index:02d}")
        self.samples = 0
        self.failed = 0

    def plan(self, rows: list[tuple[str, Array, bool]]) -> None:
        """Draws voices and speeds and predicts durations, in batches of equal token count."""
        groups: dict[int, list[tuple[str, Array, bool]]] = defaultdict(list)
        for row in rows:
            groups[len(row[1])].append(row)
        for tokens, group in groups.items():
            for at in range(0, len(group), 128):
                self._plan_batch(tokens, group[at : at + 128])

    def _plan_batch(self, tokens: int, group: list[tuple[str, Array, bool]]) -> None:
        drawn = [self.voices.draw(tokens, british) for _, _, british in group]
        ids = torch.from_numpy(np.pad(np.stack([row[1] for row in group]).astype(np.int64), ((0, 0), (1, 1))))
        speed = torch.tensor([self.random.uniform(0.8, 1.25) for _ in group])
        plans = self.model.plan(
            ids.to(self.device),
            torch.stack([s for _, s in drawn]).to(self.device),
            speed.to(self.device),
            self.totals,
        )
        for plan, (text, _, _), (voice, _) in zip(plans, group, drawn, strict=True):
            self.waiting[plan.total].append(Job(plan, text, voice))

    def full_batches(self, everything: bool = False) -> list[list[Job]]:
        """Takes what makes full batches off the waiting lists (or all of it)."""
        batches = []
        for total, jobs in self.waiting.items():
            size = batch_size(total, self.seconds)
            stop = len(jobs) if everything else len(jobs) - len(jobs) % size
            batches += [jobs[at : at + size] for at in range(0, stop, size)]
            self.waiting[total] = jobs[stop:]
        self.random.shuffle(batches)
        return batches

    @torch.inference_mode()
    def speak(self, jobs: list[Job]) -> None:
        """One batch: synthesis, 16 kHz, silence trimmed, peak 0.9, int16 to the shards."""
        wave = self.model.speak([job.plan for job in jobs], noise=self.random.random() < 0.5)
        wave = to_16k(wave.float())
        peak = wave.abs().amax(1, keepdim=True)
        good = torch.isfinite(peak[:, 0]) & (peak[:, 0] > 0.02)
        wave = wave * (0.9 / peak.clamp(min=1e-3))
        loud = wave.abs() > 0.01
        first = loud.float().argmax(1)
        last = wave.shape[1] - loud.flip(1).float().argmax(1)
        spans = torch.stack([good.long(), first, last], 1).tolist()
        whole = (wave.nan_to_num() * 32767).to(torch.int16).cpu().numpy()
        for row, job, (fine, start, stop) in zip(whole, jobs, spans, strict=True):
            clip = row[max(0, start - PAD) : stop + PAD]
            if not fine or len(clip) < 0.4 * RATE:
                self.failed += 1
                continue
            self.samples += len(clip)
            self.shards.add(clip.copy(), job.text, job.voice)


def work(index: int, options: argparse.Namespace, hours: Any, deadline: float) -> None:
    """One process: plans a chunk, speaks its full batches, until the deadline. Skips a batch that fails."""
    torch.set_num_threads(2)
    torch.backends.cudnn.benchmark = options.benchmark
    device = torch.device(options.device)
    if device.type == "cuda":
        print(
            f"p{index} fused kernels differ by {kokoro_torch_fused.self_check(device):.4f}, "
            f"in use: {kokoro_torch_fused.use_triton}",
            flush=True,
        )
    rows = read_phonemes(options.phonemes)[index :: options.procs]
    random.Random(options.seed).shuffle(rows)
    rows = rows[: options.limit] if options.limit else rows
    model = Synthesiser(options, index)
    at, size = 0, min(CHUNK, max(64, len(rows)))
    while time.time() < deadline - FLUSH_S:
        chunk = rows[at : at + size]
        at += size
        if at >= len(rows):
            at = 0
            random.Random(options.seed + at).shuffle(rows)
        model.plan(chunk)
        for batch in model.full_batches(everything=bool(options.limit)):
            if time.time() > deadline - FLUSH_S:
                break
            try:
                model.speak(batch)
            except RuntimeError as problem:
                model.failed += len(batch)
                print(f"p{index} lost a batch of {len(batch)}: {str(problem)[:200]}", flush=True)
            hours[index] = model.samples / RATE / 3600
        if options.limit:
            break
    model.shards.close()
    print(
        f"p{index} {hours[index]:.2f} h, {model.failed} utterances lost, {model.shards.written} shards",
        flush=True,
    )


def options_from(arguments: list[str] | None = None) -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--assets", type=Path, required=True, help="folder with weights-*.npz and voices.npz")
    p.add_argument("--phonemes", type=Path, required=True)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--minutes", type=float, default=3.0)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--procs", type=int, default=2)
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--batch-seconds", type=float, default=300.0, help="audio in one vocoder batch")
    p.add_argument(
        "--limit", type=int, default=0, help="only so many sentences a process, then stop (a trial)"
    )
    p.add_argument("--full-precision", action="store_true")
    p.add_argument("--benchmark", action="store_true", help="let cuDNN time its algorithms for every shape")
    return p.parse_args(arguments)


def main() -> None:
    options = options_from()
    start = time.time()
    deadline = start + 60 * options.minutes
    options.out.mkdir(parents=True, exist_ok=True)
    context = mp.get_context("spawn")
    hours = context.Array("d", options.procs)
    running = [context.Process(target=work, args=(i, options, hours, deadline)) for i in range(options.procs)]
    for process in running:
        process.start()
    while any(process.is_alive() for process in running):
        for process in running:
            process.join(10 / len(running))
        made, spent = sum(hours[:]), time.time() - start
        print(f"{spent:6.1f} s  {made:7.2f} h  {made * 3600 / spent:7.0f} x real time", flush=True)
    if any(process.exitcode for process in running):
        raise SystemExit(f"exit codes {[process.exitcode for process in running]}")


if __name__ == "__main__":
    main()
