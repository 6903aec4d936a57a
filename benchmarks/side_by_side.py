"""FunASR's engine, the transformers engine, the SDK and the services, on one machine and in one run.

    python -m benchmarks.side_by_side [--parts tandem transformers funasr] [--json FILE] [--smoke]

Every part gets the same checkpoint (random weights of the published sizes, unless --model names another)
and recordings of the same lengths: 184 files, 11,541 s, new to every cache. Answers have 3 tokens a second.
A part that fails prints why, and the others run. --smoke is a small version, for a machine without a GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import published, workload
from benchmarks.report import table
from benchmarks.stack import Services, parse_extra, running, spending
from tandem import AutoModelVLLM
from tandem.launcher import Stack

PARTS = ("tandem", "transformers", "funasr")


@dataclass(frozen=True, slots=True)
class Setup:
    """What is measured and how; `slow_files` is how many files the slow engines get."""

    services: Services
    root: Path
    work: workload.Workload
    in_flight: int
    client_processes: int
    rounds: int
    slow_files: int

    def recordings(self, name: str, seed: int, files: int | None = None) -> Path:
        """A folder of files that no part has seen before."""
        work = replace(self.work, seed=seed)
        if files is not None:
            work = replace(work, files=files, seconds=work.seconds * files / work.files)
        folder = self.root / name
        shutil.rmtree(folder, ignore_errors=True)
        workload.write(folder, work)
        return folder


@dataclass(slots=True)
class Row:
    """One measured pass. Seconds, MiB; `stages` are sums over segments that run side by side."""

    name: str
    audio: float
    wall: float
    processor: dict[str, float] = field(default_factory=dict)
    gpu_mib: dict[str, int] = field(default_factory=dict)
    stages: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def rtfx(self) -> float:
        return self.audio / self.wall


def measured(name: str, stack: Stack, run: Callable[[], Row]) -> Row:
    """Run one pass and add what the tiers spent on it."""
    with spending(stack) as spent:
        row = run()
    row.name = name
    row.processor |= spent.processor
    row.metrics, row.gpu_mib = spent.metrics, spent.gpu_mib
    print(f"{name}: {row.audio:.0f} s of audio in {row.wall:.2f} s, RTFx {row.rtfx:.0f}", flush=True)
    return row


def sdk_pass(model: AutoModelVLLM, setup: Setup, folder: Path, speakers: bool) -> Row:
    files = sorted(folder.glob("*.wav"))
    audio = sum(file.stat().st_size - 44 for file in files) / (2 * workload.RATE)
    own, began = time.process_time(), time.perf_counter()
    results = model.generate(files, spk=speakers, batch_size=setup.in_flight)
    wall, own = time.perf_counter() - began, time.process_time() - own
    words = sum(len(result.get("timestamps", ())) for result in results)
    detail = {"files": len(results), "words": words, "characters": sum(len(r["text"]) for r in results)}
    return Row("", audio, wall, {"client": own}, detail=detail)


def grpc_pass(model: AutoModelVLLM, setup: Setup, folder: Path, speakers: bool) -> Row:
    command = [sys.executable, "-m", "benchmarks.load_client", model.server, str(folder)]
    command += ["--in-flight", str(setup.in_flight), "--processes", str(setup.client_processes)]
    found = subprocess.run(
        [*command, *(["--speakers"] if speakers else [])], stdout=subprocess.PIPE, text=True
    )
    detail = json.loads(found.stdout.splitlines()[-1])
    client = {"client": detail.pop("client_processor")}
    return Row("", detail["audio"], detail["wall"], client, stages=detail.pop("stages"), detail=detail)


def tandem_part(setup: Setup) -> list[Row]:
    """SDK and gRPC by turns on the same services, with and without speakers; the first pass warms up."""
    passes = {"SDK": sdk_pass, "gRPC": grpc_pass}
    rows, seed = [], 0
    with running(setup.services) as stack, AutoModelVLLM(server=stack.address) as model:
        sdk_pass(model, setup, setup.recordings("warm-up", 1000, min(32, setup.work.files)), speakers=True)
        for number in range(setup.rounds):
            for speakers in (False, True):
                for name, one_pass in passes.items():
                    seed += 1
                    call = partial(one_pass, model, setup, setup.recordings(f"set-{seed}", seed), speakers)
                    label = f"{name}{' + speakers' if speakers else ''} #{number + 1}"
                    rows.append(measured(label, stack, call))
    return rows


def transformers_part(setup: Setup) -> list[Row]:
    """The transformers engine behind the same services, on fewer files."""
    services = replace(setup.services, engine="transformers", root=setup.root / "transformers")
    with running(services) as stack, AutoModelVLLM(server=stack.address) as model:
        sdk_pass(model, setup, setup.recordings("warm-up-2", 1001, 2), speakers=False)
        folder = setup.recordings("set-transformers", 101, setup.slow_files)
        return [measured("transformers", stack, partial(sdk_pass, model, setup, folder, speakers=False))]


def funasr_part(setup: Setup) -> list[Row]:
    """FunASR's engine in a process of its own (see benchmarks/funasr_peer.py)."""
    folder = setup.recordings("set-funasr", 201)
    wanted = setup.services
    command = [sys.executable, "-m", "benchmarks.funasr_peer", str(wanted.model), str(folder)]
    command += ["--device", wanted.device or "cuda:0", "--gpu-share", str(wanted.gpu_share)]
    command += ["--tokens-per-embedding", str(wanted.tokens_per_embedding)]
    found = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    lines = [json.loads(line) for line in found.stdout.splitlines() if line.startswith("{")]
    return [Row(**line) for line in lines]


def run_parts(setup: Setup, parts: list[str]) -> tuple[list[Row], dict[str, str]]:
    """Rows of the parts that ran, and the tracebacks of those that did not."""
    known = {"tandem": tandem_part, "transformers": transformers_part, "funasr": funasr_part}
    rows: list[Row] = []
    failures: dict[str, str] = {}
    for part in parts:
        print(f"== {part}", flush=True)
        try:
            rows += known[part](setup)
        except Exception:  # one part's failure must not cost the others their turn
            failures[part] = traceback.format_exc()
            print(failures[part], flush=True)
    return rows, failures


def report(rows: list[Row]) -> str:
    """One line for each pass."""
    stages = ("audio_decode", "vad", "encode_queue", "encode", "decode", "align", "speakers")
    cells = [
        {
            "pass": row.name,
            "audio s": f"{row.audio:.0f}",
            "wall s": f"{row.wall:.2f}",
            "RTFx": f"{row.rtfx:.0f}",
            **{f"CPU {tier}": f"{spent:.1f}" for tier, spent in row.processor.items()},
            **{f"GiB {tier}": f"{mib / 1024:.1f}" for tier, mib in row.gpu_mib.items()},
            **{stage: f"{row.stages[stage]:.1f}" for stage in stages if stage in row.stages},
        }
        for row in rows
    ]
    return table(cells)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--model", type=Path, help="a checkpoint; unset makes a random one")
    parser.add_argument("--tokens-per-embedding", type=float, default=published.TOKENS_PER_EMBEDDING)
    parser.add_argument("--engine", default="vllm", choices=("vllm", "transformers"), help="of part tandem")
    parser.add_argument("--device", help="torch device; unset is found")
    parser.add_argument("--gpu-share", type=float, default=0.6, help="of the GPU's memory, for the decoder")
    parser.add_argument("--flags", nargs="*", default=[], metavar="TIER=FLAGS", help="more flags of a tier")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--in-flight", type=int, default=64, help="recordings at a time")
    parser.add_argument("--client-processes", type=int, default=2)
    parser.add_argument("--slow-files", type=int, default=16, help="files for the transformers engine")
    parser.add_argument("--files", type=int, default=184)
    parser.add_argument("--seconds", type=float, default=11_541)
    parser.add_argument("--root", type=Path, help="folder for checkpoint and recordings; unset is temporary")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args(arguments)
    if options.smoke:
        options.files, options.seconds, options.rounds, options.slow_files = 4, 40.0, 1, 2
        options.in_flight = 4
    return options


def main() -> int:
    options = parse()
    with contextlib.ExitStack() as resources:
        root = options.root or Path(resources.enter_context(tempfile.TemporaryDirectory()))
        shortest, longest = (8.0, 14.0) if options.smoke else (44.0, 90.0)
        services = Services(
            model=options.model or published.ensure(root / "model", options.smoke),
            root=root / "services",
            engine=options.engine,
            device=options.device,
            gpu_share=options.gpu_share,
            tokens_per_embedding=options.tokens_per_embedding,
            extra=parse_extra(options.flags),
        )
        setup = Setup(
            services=services,
            root=root,
            work=workload.Workload(options.files, options.seconds, shortest, longest),
            in_flight=options.in_flight,
            client_processes=options.client_processes,
            rounds=options.rounds,
            slow_files=options.slow_files,
        )
        rows, failures = run_parts(setup, options.parts)
    print(report(rows))
    if options.json:
        record = {"rows": [asdict(row) | {"rtfx": row.rtfx} for row in rows], "failures": failures}
        options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
