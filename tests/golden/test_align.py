"""Forced alignment exactly as the published implementation reports it, and compact against dense."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gateway.align.emissions import compact_emissions, dense_emissions
from gateway.align.viterbi import AlignmentError, forced_align
from gateway.text.posteriors import CtcPosteriors
from tests.golden.nano import Golden, load_golden

GOLDEN = load_golden()


def _case(golden: Golden, recording: int) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    case = golden.cases[f"{recording}.ctc"]
    targets = np.array(case["align_target_ids"], dtype=np.int64)
    return case, golden.arrays[f"{recording}.ctc_log_probs"], targets


@pytest.mark.parametrize("recording", [0, 1])
def test_dense_alignment(recording: int) -> None:
    case, log_probs, targets = _case(GOLDEN, recording)
    spans = forced_align(dense_emissions(log_probs, targets, case["ctc_blank_id"]), targets)
    actual = [
        {"token": int(token), "start_time": int(start), "end_time": int(end), "score": round(float(score), 3)}
        for token, start, end, score in zip(targets, spans.starts, spans.ends, spans.scores, strict=True)
    ]
    assert actual == case["align"]


def test_too_short_a_recording_is_an_error_and_no_times() -> None:
    case, log_probs, targets = _case(GOLDEN, 2)
    assert case["align"] == []
    with pytest.raises(AlignmentError, match="15 tokens need 15 frames"):
        forced_align(dense_emissions(log_probs, targets, case["ctc_blank_id"]), targets)


@pytest.mark.parametrize("recording", [0, 1])
def test_compact_posteriors_that_keep_everything_align_the_same(recording: int) -> None:
    case, log_probs, targets = _case(GOLDEN, recording)
    compact = CtcPosteriors.from_dense(log_probs, case["ctc_blank_id"], top_k=439)
    spans = forced_align(compact_emissions(compact, targets), targets)
    assert spans.starts.tolist() == [token["start_time"] for token in case["align"]]
    assert spans.ends.tolist() == [token["end_time"] for token in case["align"]]
