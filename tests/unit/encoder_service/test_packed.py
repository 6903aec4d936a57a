"""The packed networks and their runners against the padded ones: same numbers in any batch and any bucket."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace

import pytest
import torch

from encoder_service.model_config import AdaptorConfig, CtcConfig, FrontendConfig, NanoConfig, SanmConfig
from encoder_service.models.fun_asr_nano import FunASRNano
from encoder_service.models.packed import PackedNetworks
from encoder_service.runner import (
    QUANTUM,
    SLOTS,
    BucketRunner,
    BufferSizes,
    NetworkOutputs,
    PlainRunner,
    Runner,
    Wanted,
    find_bucket,
)
from encoder_service.stage_clock import StageClock
from encoder_service.transfer import Transfer

CPU = torch.device("cpu")
ADAPTOR = AdaptorConfig(encoder_dim=32, llm_dim=48, ffn_dim=64, downsample_rate=1)
CTC = CtcConfig(AdaptorConfig(32, 40, 64, downsample_rate=1, attention_heads=4), vocab_size=150, blank_id=149)
CONFIG = NanoConfig(FrontendConfig(n_mels=4), SanmConfig(24, 32, 4, 64, 3, 2), ADAPTOR, CTC)
BATCHES = [(1,), (2, 1, 3), (40, 9, 17, 128), (128,), (100, 100, 100, 1, 5), tuple(range(1, 20))]


def build(k: int = 1, ctc_k: int = 1, shift: int = 0, with_ctc: bool = True) -> FunASRNano:
    torch.manual_seed(7)
    config = replace(
        CONFIG,
        adaptor=replace(ADAPTOR, downsample_rate=k),
        ctc=replace(CTC, decoder=replace(CTC.decoder, downsample_rate=ctc_k)),
        encoder=replace(CONFIG.encoder, sanm_shift=shift),
    )
    return FunASRNano(config, with_ctc).eval().requires_grad_(False)


class Recorder:
    """Does what graphs do on a GPU: the step that first came with a key runs for every later one too."""

    def __init__(self) -> None:
        self.steps: dict[Hashable, Callable[[], None]] = {}

    def __call__(self, key: Hashable, step: Callable[[], None]) -> None:
        self.steps.setdefault(key, step)()


def runners(model: FunASRNano) -> dict[str, Runner]:
    networks, transfer = PackedNetworks.of(model), Transfer(CPU)
    return {
        "plain": PlainRunner(networks, 5, transfer),
        "buckets": BucketRunner(networks, BufferSizes(512, 256), 5, transfer),
        "recorded": BucketRunner(networks, BufferSizes(512, 256), 5, transfer, Recorder()),
    }


def run(runner: Runner, features: torch.Tensor, lengths: tuple[int, ...]) -> NetworkOutputs:
    with torch.inference_mode():
        return runner.run(features, lengths, Wanted(embeds=True, ctc=True), StageClock(CPU))


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["plain", "buckets", "recorded"])
@pytest.mark.parametrize(("k", "ctc_k", "shift"), [(1, 1, 0), (2, 1, 0), (3, 2, 2)])
def test_equal_to_the_padded_networks_one_by_one(name: str, k: int, ctc_k: int, shift: int) -> None:
    """Batches of all shapes run through the same buffers, so anything left over from one would show."""
    model = build(k, ctc_k, shift)
    runner = runners(model)[name]
    for seed, lengths in enumerate([*BATCHES, *reversed(BATCHES)]):
        torch.manual_seed(seed)
        clips = [torch.randn(length, 24) for length in lengths]
        out = run(runner, torch.cat(clips), lengths)
        assert out.adapted is not None and out.hidden is not None and out.compact is not None
        at = at_adapted = at_hidden = 0
        for clip, length in zip(clips, lengths, strict=True):
            alone = model(clip[None], torch.tensor([length]))
            stacks, ctc_stacks = -(-length // k), -(-length // ctc_k)
            close(out.states[at : at + length], alone.encoder_out[0])
            close(out.adapted[at_adapted : at_adapted + stacks], alone.adaptor_out[0])
            close(out.hidden[at_hidden : at_hidden + ctc_stacks], alone.ctc_hidden[0])
            top = model.ctc(alone.ctc_hidden[0])[:, :-1].topk(5).values  # type: ignore[misc]
            close(out.compact.top_log_probs[at_hidden : at_hidden + ctc_stacks], top)
            at, at_adapted, at_hidden = at + length, at_adapted + stacks, at_hidden + ctc_stacks


def test_only_what_is_wanted_is_computed() -> None:
    for runner in runners(build()).values():
        with torch.inference_mode():
            out = runner.run(torch.randn(9, 24), (4, 5), Wanted(embeds=False, ctc=False), StageClock(CPU))
        assert (out.adapted, out.hidden, out.compact) == (None, None, None)


def test_a_model_without_ctc_runs() -> None:
    for runner in runners(build(with_ctc=False)).values():
        out = run(runner, torch.randn(9, 24), (4, 5))
        assert out.adapted is not None and (out.hidden, out.compact) == (None, None)


def test_what_has_no_bucket_still_runs() -> None:
    model = build()
    networks = PackedNetworks.of(model)
    small = BucketRunner(networks, BufferSizes(128, 64), 5, Transfer(CPU))
    for lengths in [(64, 65), (65,), (1,) * 100 + (29,)]:
        features = torch.randn(sum(lengths), 24)
        close(run(small, features, lengths).states, run(runners(model)["plain"], features, lengths).states)


def test_buckets_hold_their_batches_and_waste_little() -> None:
    for total in (1, 127, 128, 129, 1000, 1100, 5000, 8000):
        bucket = find_bucket((total,), 8192, 8192)
        assert bucket is not None and 0 <= bucket.rows - total < max(QUANTUM, total / 8)
    assert find_bucket((8193,), 8192, 8192) is None
    assert find_bucket((300,), 8192, 256) is None
    assert find_bucket((1,) * (SLOTS[-1] + 1), 8192, 256) is None
    many = find_bucket((20,) * 60, 8192, 1000)
    assert many is not None and (many.slots, many.longest) == (256, 512)


def test_few_buckets_serve_all_batches() -> None:
    generator = torch.Generator().manual_seed(0)
    buckets = set()
    for _ in range(2000):
        count = int(torch.randint(1, 50, (1,), generator=generator))
        lengths = tuple(torch.randint(1, 160, (count,), generator=generator).tolist())
        buckets.add(find_bucket(lengths, 8192, 1000))
    assert None not in buckets and len(buckets) < 96


def test_prepared_buckets_are_all_that_batches_can_need() -> None:
    sizes = BufferSizes(1024, 700)
    recorder = Recorder()
    runner = BucketRunner(PackedNetworks.of(build()), sizes, 5, Transfer(CPU), recorder)
    with torch.inference_mode():
        shapes = runner.prepare()
    ready = {key[1] for key in recorder.steps if isinstance(key, tuple) and key[0] == "encode"}
    assert shapes == len(ready)
    generator = torch.Generator().manual_seed(0)
    for _ in range(2000):
        count = int(torch.randint(1, 40, (1,), generator=generator))
        lengths = tuple(torch.randint(1, min(1024 // count, 700) + 1, (count,), generator=generator).tolist())
        bucket = find_bucket(lengths, sizes.rows, sizes.longest)
        assert bucket is not None and bucket in ready


def test_bfloat16_stays_close() -> None:
    model = build()
    lengths = (30, 13)
    features = torch.randn(43, 24)
    exact = run(runners(model)["plain"], features, lengths)
    model.cast(torch.bfloat16)
    for runner in runners(model).values():
        rounded = run(runner, features, lengths)
        assert exact.adapted is not None and rounded.adapted is not None
        error = (rounded.adapted[:43] - exact.adapted).norm() / exact.adapted.norm()
        assert 0 < error < 0.02
