"""The encoder tier's core at the published sizes, without services: where its time goes and what bounds it.

    python -m benchmarks.encoder [--variants graphs,eager,...] [--loads 62,29,10] [--profile] [--tiny]

Random weights (speed does not depend on them) and noise of 11,541 s as 184, 398 and 1,154 segments of
different lengths go through EncoderEngine, two batches in flight, and through the Batcher, all submitted at
once. Each variant runs its load once unmeasured, so graphs are captured before. The floor is the networks'
arithmetic at the rate of a large bfloat16 matrix product on this device. A variant that fails prints its
traceback and the rest goes on. --tiny shows on a CPU that it runs.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch

from encoder_service.audio_queue import AudioQueue, BatchLimits, Waiting
from encoder_service.checkpoint import Checkpoint
from encoder_service.engine import EncoderEngine, EngineConfig
from encoder_service.messages import CtcOutput, EncodedAudio, EncodeItem, Pending, StageTimes
from encoder_service.model_config import AdaptorConfig, CtcConfig, FrontendConfig, NanoConfig, SanmConfig
from encoder_service.models.campplus import CamPlusPlus
from encoder_service.models.fun_asr_nano import FunASRNano
from encoder_service.piece_reader import fixed_executor
from encoder_service.speaker import WEIGHTS, SpeakerEmbedder, load_speaker_model
from encoder_service.waves import Samples

RATE = 16_000
SECONDS = 11_541.0
SPEAKERS = Path(__file__).resolve().parents[1] / "models" / "speaker"
PUBLISHED = NanoConfig(
    FrontendConfig(lfr_m=7, lfr_n=6),
    SanmConfig(560, 512, 4, 2048, num_blocks=50, tp_blocks=20),
    AdaptorConfig(512, 1024, 2048, downsample_rate=1, use_low_frame_rate=True),
    CtcConfig(AdaptorConfig(512, 512, 2048, downsample_rate=1, n_layer=5), 60515, 60514),
)
TINY = NanoConfig(
    PUBLISHED.frontend,
    SanmConfig(560, 64, 4, 128, num_blocks=3, tp_blocks=1),
    replace(PUBLISHED.adaptor, encoder_dim=64, llm_dim=64, ffn_dim=64),
    CtcConfig(AdaptorConfig(64, 64, 64, downsample_rate=1, n_layer=1), 1000, 999),
)


@dataclass(frozen=True, slots=True)
class Variant:
    """How the engine runs. `waves` is the type of the samples; `batcher` goes through the asyncio front."""

    dtype: str = "bfloat16"
    graphs: bool = True
    speakers: bool = False
    batcher: bool = False
    waves: str = "int16"


VARIANTS = {
    "fp32": Variant("float32", graphs=False),
    "eager": Variant(graphs=False),
    "graphs": Variant(),
    "graphs-f32-samples": Variant(waves="float32"),
    "graphs-speakers": Variant(speakers=True),
    "batcher": Variant(batcher=True),
    "batcher-speakers": Variant(batcher=True, speakers=True),
}


@dataclass(frozen=True, slots=True)
class Setting:
    """What all variants share."""

    config: NanoConfig
    device: torch.device
    limits: BatchLimits
    seconds: float

    def engine(self, variant: Variant) -> EncoderEngine:
        """An engine over the same random weights each time."""
        torch.manual_seed(0)
        with self.device:
            model = FunASRNano(self.config).eval().requires_grad_(False)
            voices = CamPlusPlus().eval().requires_grad_(False)
        if (SPEAKERS / WEIGHTS).is_file():
            voices = load_speaker_model(SPEAKERS)
        cuda = self.device.type == "cuda"
        halves = torch.float16 if cuda and variant.dtype == "bfloat16" else torch.float32
        settings = EngineConfig(
            str(self.device),
            variant.dtype,
            cuda_graphs=variant.graphs,
            graph_seconds=self.limits.max_seconds,
        )
        return EncoderEngine(
            Checkpoint(Path(), self.config, model, ""),
            settings,
            SpeakerEmbedder(voices, self.device, halves, executor=fixed_executor(self.device, variant.graphs))
            if variant.speakers
            else None,
        )


def make_load(mean: float, total: float, variant: Variant, seed: int = 0) -> list[EncodeItem]:
    """Segments of noise between 0.7 and 1.4 times `mean` seconds, `total` in all."""
    generator = np.random.default_rng(seed)
    lengths = generator.uniform(0.7, 1.4, max(1, round(total / mean)))
    lengths *= total / lengths.sum()
    noise = generator.integers(-3000, 3000, int(3 * lengths.max() * RATE), dtype=np.int16)
    items = []
    for length in lengths:
        start = int(generator.integers(0, len(noise) - int(length * RATE)))
        samples = noise[start : start + int(length * RATE)]
        if variant.waves == "float32":
            given: Samples = np.divide(samples, 32768, dtype=np.float32)
        else:
            given = samples
        items.append(EncodeItem(given, CtcOutput.COMPACT, speakers=variant.speakers))
    return items


def cut(items: Sequence[EncodeItem], limits: BatchLimits) -> list[list[EncodeItem]]:
    """Batches as the service would take them from a full line."""
    queue: AudioQueue[EncodeItem] = AudioQueue(limits)
    for item in items:
        queue.push(Waiting(item, len(item.samples) / RATE, 0.0))
    batches = []
    while len(queue):
        batches.append([entry.payload for entry in queue.take()])
    return batches


def through_engine(engine: EncoderEngine, batches: list[list[EncodeItem]]) -> list[EncodedAudio]:
    """Launches each batch before the results of the last one are taken apart."""
    flying: deque[Pending] = deque()
    results: list[EncodedAudio] = []
    for batch in batches:
        flying.append(engine.launch(batch))
        if len(flying) == engine.batches_at_once:
            results += flying.popleft().collect()
    while flying:
        results += flying.popleft().collect()
    return results


def through_batcher(
    engine: EncoderEngine, items: list[EncodeItem], limits: BatchLimits
) -> list[EncodedAudio]:
    """Submits all items at once."""
    from encoder_service.batcher import Batcher, BatcherConfig

    async def everything() -> list[EncodedAudio]:
        async with Batcher(engine, BatcherConfig(limits, max_queued_seconds=1e9)) as batcher:
            found = await asyncio.gather(*(batcher.submit(item) for item in items))
        return [encoded.audio for encoded in found]

    return asyncio.run(everything())


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. Seconds; `stages` on the device, summed over batches."""

    variant: str
    segments: int
    wall: float
    processor: float
    stages: StageTimes
    floor: float
    gigabytes: float

    HEAD = (
        "| variant | segments | seconds | audio s/s | of floor | on device | front | encoder | adaptor | CTC "
        "| speakers | host CPU s | GB |\n" + "| --- " * 13 + "|"
    )

    def line(self, seconds: float) -> str:
        stages = [getattr(self.stages, field.name) for field in fields(self.stages)]
        cells = [
            self.variant,
            str(self.segments),
            f"{self.wall:.3f}",
            f"{seconds / self.wall:,.0f}",
            f"{self.floor / self.wall:.0%}",
            f"{sum(stages):.3f}",
            *(f"{stage:.3f}" for stage in stages),
            f"{self.processor:.2f}",
            f"{self.gigabytes:.2f}",
        ]
        return f"| {' | '.join(cells)} |"


def measure(name: str, setting: Setting, mean: float, rate: float) -> Row:
    """One variant on one load."""
    variant = VARIANTS[name]
    cuda = setting.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    engine = setting.engine(variant)
    items = make_load(mean, setting.seconds, variant)
    batches = cut(items, setting.limits)

    def run() -> list[EncodedAudio]:
        if variant.batcher:
            return through_batcher(engine, items, setting.limits)
        return through_engine(engine, batches)

    through_engine(engine, batches[:2] if not variant.graphs else batches)
    if variant.batcher:
        run()
    begun, processor = time.perf_counter(), time.process_time()
    results = run()
    wall, processor = time.perf_counter() - begun, time.process_time() - processor
    frames = [result.num_frames for result in results]
    return Row(
        name,
        len(items),
        wall,
        processor,
        total_times(results),
        operations(setting.config, frames) / rate,
        torch.cuda.max_memory_allocated() / 1e9 if cuda else 0.0,
    )


def total_times(results: Sequence[EncodedAudio]) -> StageTimes:
    """Stage times of all batches; each result carries its batch's."""
    share = [(result.times, 1 / result.batch_size) for result in results]
    return StageTimes(
        *(sum(getattr(times, field.name) * part for times, part in share) for field in fields(StageTimes))
    )


def operations(config: NanoConfig, frames: Sequence[int]) -> float:
    """Floating-point operations of the networks on segments of so many frames."""
    total, pairs = sum(frames), sum(count * count for count in frames)
    encoder, adaptor, ctc = config.encoder, config.adaptor, config.ctc
    size, layers = encoder.output_size, encoder.num_blocks + encoder.tp_blocks
    work = total * layers * (4 * size * size + 2 * size * encoder.linear_units) + 2 * pairs * layers * size
    for part in (adaptor, ctc.decoder) if ctc is not None else (adaptor,):
        width = part.llm_dim
        work += total * (part.encoder_dim * part.ffn_dim + part.ffn_dim * width)
        work += part.n_layer * (total * (4 * width * width + width * width // 2) + 2 * pairs * width)
    if ctc is not None:
        work += total * ctc.decoder.llm_dim * ctc.vocab_size
    return 2.0 * work


def product_rate(device: torch.device) -> float:
    """Operations per second of a large bfloat16 matrix product."""
    size = 8192 if device.type == "cuda" else 512
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    rounds = 50 if device.type == "cuda" else 5
    for count in (5, rounds):
        _wait(device)
        begun = time.perf_counter()
        for _ in range(count):
            a @ b
        _wait(device)
    return rounds * 2.0 * size**3 / (time.perf_counter() - begun)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def compare(setting: Setting) -> None:
    """Equality of graphs and eager launches, and what bfloat16 costs, on a batch of mixed lengths."""
    total = 200.0 if setting.config is PUBLISHED else 20.0
    items = [*make_load(15.0, total, VARIANTS["graphs"]), *make_load(2.0, total / 10, VARIANTS["graphs"])]
    found = {}
    for name in ("fp32", "eager", "graphs"):
        engine = setting.engine(VARIANTS[name])
        found[name] = [engine.encode(items) for _ in range(3)][-1]
        alone = [engine.encode([item])[0] for item in items[-3:]]
        _report(f"{name}: in a batch and alone", found[name][-3:], alone)
        del engine
    _report("graphs against eager", found["graphs"], found["eager"])
    _report("bf16 against fp32", found["eager"], found["fp32"])


def _report(title: str, left: Sequence[EncodedAudio], right: Sequence[EncodedAudio]) -> None:
    """Relative difference of embeddings, frames with the same likeliest token, difference of its log-prob."""
    ours, theirs = (_flat(results) for results in (left, right))
    error = np.linalg.norm(ours[0] - theirs[0]) / np.linalg.norm(theirs[0])
    same = (ours[1] == theirs[1]).mean()
    gap = np.abs(ours[2] - theirs[2])
    print(
        f"{title}: embeddings differ by {error:.2e}, likeliest token equal in {same:.2%} of frames, "
        f"its log-prob by {gap.mean():.2e} on average, {gap.max():.2e} at most",
        flush=True,
    )


def _flat(results: Sequence[EncodedAudio]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    embeds = np.concatenate([result.embeds.float32().ravel() for result in results if result.embeds])
    posteriors = [result.compact for result in results if result.compact]
    ids = np.concatenate([part.top_ids[:, 0] for part in posteriors])
    return embeds, ids, np.concatenate([part.top_log_probs[:, 0] for part in posteriors])


def profile(setting: Setting, mean: float) -> None:
    """Kernels of one steady batch, launched one by one and as graphs."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    for name in ("eager", "graphs", "graphs-speakers"):
        engine = setting.engine(VARIANTS[name])
        batch = cut(make_load(mean, setting.seconds, VARIANTS[name]), setting.limits)[0]
        for _ in range(3):
            engine.encode(batch)
        activities = [ProfilerActivity.CPU]
        if setting.device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        with record(activities=activities) as found:
            engine.encode(batch)
        order = "cuda_time_total" if setting.device.type == "cuda" else "cpu_time_total"
        print(f"\n{name}: {len(batch)} segments of about {mean:.0f} s")
        print(found.key_averages().table(sort_by=order, row_limit=30, max_name_column_width=90), flush=True)


def attempt(what: str, work: Callable[[], None]) -> None:
    """Run; a failure is printed and the rest goes on."""
    try:
        work()
    except Exception:
        print(f"{what} failed:\n{traceback.format_exc()}", flush=True)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variants", default=",".join(VARIANTS), help="comma-separated")
    parser.add_argument("--loads", default="62.7,29,10", help="mean seconds of segments, comma-separated")
    parser.add_argument("--batch-seconds", type=float, default=480.0)
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--no-compare", action="store_true")
    parser.add_argument("--tiny", action="store_true", help="small networks and little audio")
    options = parser.parse_args()
    device = torch.device(options.device)
    limits = BatchLimits(256, 20.0 if options.tiny else options.batch_seconds, max_spread=1.0)
    setting = Setting(TINY if options.tiny else PUBLISHED, device, limits, 60.0 if options.tiny else SECONDS)
    rate = product_rate(device)
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{kind}, torch {torch.__version__}; bfloat16 products at {rate / 1e12:.0f} TFLOP/s", flush=True)
    loads = [float(text) for text in options.loads.split(",")]
    if not options.no_compare:
        attempt("comparison", lambda: compare(setting))
    print(Row.HEAD, flush=True)
    for name in options.variants.split(","):
        for mean in loads:
            attempt(
                f"{name} at {mean} s",
                lambda name=name, mean=mean: print(  # type: ignore[misc]
                    measure(name, setting, mean / (6 if options.tiny else 1), rate).line(setting.seconds),
                    flush=True,
                ),
            )
    if options.profile:
        attempt("profile", lambda: profile(setting, loads[0] / (6 if options.tiny else 1)))


if __name__ == "__main__":
    main()
