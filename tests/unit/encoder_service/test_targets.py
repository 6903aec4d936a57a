"""Exact log probabilities of a few tokens from what an engine keeps, and how much may be kept."""

from __future__ import annotations

import numpy as np
import pytest

from encoder_service.checkpoint import load_checkpoint
from encoder_service.engine import EncoderEngine, EngineConfig
from encoder_service.messages import CtcOutput, EncodeItem
from encoder_service.targets import KeptBudget, TargetHead
from tests.golden.nano import DIRECTORY, load_golden


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-3), ("bfloat16", 0.05)])
def test_targets_are_columns_of_the_dense_posteriors(dtype: str, tolerance: float) -> None:
    engine = EncoderEngine(load_checkpoint(DIRECTORY), EngineConfig(dtype=dtype))
    assert engine.model.ctc is not None
    head, clips = TargetHead(engine.model.ctc), load_golden().clips
    kept = engine.encode([EncodeItem(clip, CtcOutput.COMPACT, keep_ctc=True) for clip in clips])
    dense = engine.encode([EncodeItem(clip, CtcOutput.DENSE) for clip in clips])
    targets = [300, 2, 438]
    for found, want in zip(kept, dense, strict=True):
        assert found.kept is not None and want.dense is not None
        columns = want.dense[:, [*targets, 439]]
        np.testing.assert_allclose(head.log_probs(found.kept, targets), columns, atol=tolerance)


def test_only_what_is_asked_for_is_kept() -> None:
    engine = EncoderEngine(load_checkpoint(DIRECTORY), EngineConfig())
    clip = load_golden().clips[2]
    items = [EncodeItem(clip, CtcOutput.COMPACT, keep_ctc=keep) for keep in (False, True)]
    assert [result.kept is not None for result in engine.encode(items)] == [False, True]


def test_room_comes_back_whatever_ends_the_call() -> None:
    budget = KeptBudget(10.0)
    with pytest.raises(RuntimeError), budget.keeping(6.0) as first:
        with budget.keeping(6.0) as second:
            assert (first, second) == (True, False)
        with budget.keeping(4.0) as third:
            assert third
        raise RuntimeError("the call was lost")
    with budget.keeping(10.0) as whole:
        assert whole
