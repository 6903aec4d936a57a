"""The engine on the golden checkpoint: parts on request, equal results in any batch, early refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from encoder_service.checkpoint import load_checkpoint
from encoder_service.engine import EncoderEngine, EngineConfig, choose_dtype
from encoder_service.messages import CtcOutput, EncodedAudio, EncodeItem, FloatArray
from tandem.checkpoint import read_tensors
from tandem.errors import CapabilityMissing, InvalidAudio, LimitExceeded, TandemError
from tandem.tensor.v1 import tensor_pb2
from tests.golden.nano import DIRECTORY, load_golden, relative_error


@pytest.fixture(scope="module")
def engine() -> EncoderEngine:
    return EncoderEngine(load_checkpoint(DIRECTORY), EngineConfig(max_segment_seconds=30.0))


def clip(seconds: float, seed: int = 0) -> FloatArray:
    return np.random.default_rng(seed).normal(0, 0.1, int(seconds * 16000)).astype(np.float32)


def embeds(result: EncodedAudio) -> FloatArray:
    assert result.embeds is not None
    return result.embeds.float32()


def test_results_are_the_published_ones(engine: EncoderEngine) -> None:
    golden = load_golden()
    items = [EncodeItem(samples, CtcOutput.DENSE, encoder_out=True) for samples in golden.clips]
    for index, result in enumerate(engine.encode(items)):
        expected = golden.arrays
        assert result.dense is not None and result.encoder_out is not None
        assert result.num_frames == len(expected[f"{index}.encoder_out"])
        assert result.num_embeds == len(expected[f"{index}.audio_embeds"])
        assert relative_error(embeds(result), expected[f"{index}.audio_embeds"]) < 1e-3
        assert relative_error(result.encoder_out, expected[f"{index}.encoder_out"]) < 1e-3
        assert relative_error(result.dense, expected[f"{index}.ctc_log_probs"]) < 1e-3


def test_random_mixes_of_lengths_equal_single_runs(engine: EncoderEngine) -> None:
    generator = np.random.default_rng(5)
    for mix in range(6):
        lengths = generator.uniform(0.01, 8.0, size=generator.integers(2, 9))
        items = [EncodeItem(clip(float(s), mix), CtcOutput.COMPACT) for s in lengths]
        for item, batched in zip(items, engine.encode(items), strict=True):
            alone = engine.encode([item])[0]
            assert (batched.num_frames, batched.num_embeds) == (alone.num_frames, alone.num_embeds)
            assert relative_error(embeds(batched), embeds(alone)) < 1e-4
            assert batched.compact is not None and alone.compact is not None
            assert np.allclose(batched.compact.top_log_probs, alone.compact.top_log_probs, atol=1e-3)
            assert np.allclose(batched.compact.blank_log_probs, alone.compact.blank_log_probs, atol=1e-3)
            assert np.allclose(
                batched.compact.remainder_log_probs, alone.compact.remainder_log_probs, atol=1e-3
            )


def test_items_of_one_batch_get_what_each_asked_for(engine: EncoderEngine) -> None:
    samples = clip(1.0)
    plain, compact, dense, partial = engine.encode(
        [
            EncodeItem(samples),
            EncodeItem(samples, CtcOutput.COMPACT),
            EncodeItem(samples, CtcOutput.DENSE, encoder_out=True),
            EncodeItem(samples, CtcOutput.COMPACT, embeds=False),
        ]
    )
    assert plain.embeds is not None and (plain.compact, plain.dense, plain.encoder_out) == (None, None, None)
    assert dense.dense is not None and dense.encoder_out is not None and dense.compact is None
    assert partial.embeds is None and partial.num_embeds == plain.num_embeds
    assert compact.compact is not None and partial.compact is not None
    assert np.array_equal(compact.compact.top_ids, partial.compact.top_ids)
    best = np.sort(dense.dense[:, :-1], axis=1)[:, ::-1][:, : engine.config.ctc_top_k]
    assert np.allclose(compact.compact.top_log_probs, best, atol=1e-4)
    assert compact.compact.blank_id == 439 and compact.compact.vocab_size == 440
    assert plain.batch_size == 4
    assert plain.times.frontend > 0 and plain.times.compute >= plain.times.encoder > 0


def test_read_only_samples_are_fine(engine: EncoderEngine) -> None:
    samples = np.frombuffer(clip(0.5).tobytes(), dtype=np.float32)
    assert engine.encode([EncodeItem(samples)])[0].num_frames == 8


def test_bfloat16_travels_as_bfloat16(engine: EncoderEngine) -> None:
    rounded = EncoderEngine(load_checkpoint(DIRECTORY), EngineConfig(dtype="bfloat16"))
    item = EncodeItem(clip(2.0))
    result = rounded.encode([item])[0]
    assert result.embeds is not None and result.embeds.dtype == tensor_pb2.DATA_TYPE_BFLOAT16
    assert 0 < relative_error(embeds(result), embeds(engine.encode([item])[0])) < 0.05


@pytest.mark.parametrize(
    ("samples", "error", "says"),
    [
        (np.zeros(1, dtype=np.float32), InvalidAudio, "too few"),
        (np.zeros((2, 800), dtype=np.float32), InvalidAudio, "one dimension"),
        (np.zeros(800, dtype=np.float64), InvalidAudio, "float64"),
        (np.full(800, np.nan, dtype=np.float32), InvalidAudio, "finite"),
        (np.r_[clip(0.1), np.float32(np.nan), clip(0.1)], InvalidAudio, "finite"),
        (np.r_[clip(0.1), np.float32(-np.inf), clip(0.1)], InvalidAudio, "finite"),
        (np.full(800, 1e18, dtype=np.float32), InvalidAudio, r"1e\+18 is no audio"),
        (np.r_[clip(0.1), np.float32(-3e38), clip(0.1)], InvalidAudio, r"3e\+38 is no audio"),
        (np.zeros(31 * 16000, dtype=np.float32), LimitExceeded, "31.0 s exceeds the limit of 30 s"),
    ],
)
def test_bad_audio_is_refused(
    engine: EncoderEngine, samples: FloatArray, error: type[TandemError], says: str
) -> None:
    with pytest.raises(error, match=says):
        engine.validate(EncodeItem(samples))


def test_loud_audio_of_another_scale_is_encoded(engine: EncoderEngine) -> None:
    item = EncodeItem((clip(1.0) * 1e7).clip(-1e6, 1e6).astype(np.float32), CtcOutput.DENSE)
    engine.validate(item)
    (result,) = engine.encode([item])
    assert np.isfinite(embeds(result)).all()
    assert result.dense is not None and np.isfinite(result.dense).all()


def test_ctc_of_a_checkpoint_without_it_is_refused(tmp_path: Path) -> None:
    tensors = read_tensors(DIRECTORY / "model.pt")
    torch.save({k: v for k, v in tensors.items() if not k.startswith("ctc")}, tmp_path / "model.pt")
    (tmp_path / "config.yaml").write_bytes((DIRECTORY / "config.yaml").read_bytes())
    engine = EncoderEngine(load_checkpoint(tmp_path), EngineConfig())
    engine.warm_up()
    engine.validate(EncodeItem(clip(0.1)))
    with pytest.raises(CapabilityMissing, match="no CTC weights"):
        engine.validate(EncodeItem(clip(0.1), CtcOutput.COMPACT))


def test_embed_count_follows_both_rules(engine: EncoderEngine) -> None:
    assert [engine.embed_count(frames) for frames in (1, 8, 9, 83, 500, 505)] == [1, 1, 2, 11, 63, 64]
    stacked = replace(engine.checkpoint.config.adaptor, use_low_frame_rate=False, downsample_rate=2)
    checkpoint = replace(engine.checkpoint, config=replace(engine.checkpoint.config, adaptor=stacked))
    assert [EncoderEngine(checkpoint, EngineConfig()).embed_count(n) for n in (1, 2, 3, 83)] == [1, 1, 2, 42]


def test_dtype_names() -> None:
    cpu = torch.device("cpu")
    assert choose_dtype("auto", cpu) is torch.float32
    assert choose_dtype("bfloat16", cpu) is torch.bfloat16
    with pytest.raises(ValueError, match="unknown dtype 'int8'"):
        choose_dtype("int8", cpu)
