"""Choosing tokens: what each parameter keeps, in the order penalty, temperature, top-k, top-p."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from decoder_service.engines.base import Sampling
from decoder_service.engines.sampling import Chooser, choose_tokens, log_probs_of

CPU = torch.device("cpu")
LOGITS = torch.log(torch.tensor([0.5, 0.25, 0.15, 0.1]))


def chooser(prompt_ids: tuple[int, ...] = (), **given: Any) -> Chooser:
    sampling = Sampling(max_tokens=1, **given)
    return Chooser(sampling, prompt_ids, len(LOGITS), CPU)


def drawn(logits: Tensor = LOGITS, draws: int = 2000, **given: Any) -> Counter[int]:
    source = chooser(temperature=1.0, seed=1, **given)
    return Counter(int(source.choose(logits)) for _ in range(draws))


def test_draws_follow_the_distribution() -> None:
    counts = drawn()
    for token, share in enumerate((0.5, 0.25, 0.15, 0.1)):
        assert counts[token] / 2000 == pytest.approx(share, abs=0.04)


def test_top_k_keeps_the_best_k() -> None:
    assert set(drawn(top_k=2)) == {0, 1}


@pytest.mark.parametrize(("top_p", "kept"), [(0.3, {0}), (0.5, {0}), (0.6, {0, 1}), (0.95, {0, 1, 2, 3})])
def test_top_p_keeps_the_smallest_set_that_reaches_it(top_p: float, kept: set[int]) -> None:
    assert set(drawn(top_p=top_p)) == kept


@pytest.mark.parametrize(
    ("logits", "given"),
    [
        (LOGITS.roll(2), {"temperature": 1e-40}),
        (LOGITS.roll(2) + 5, {"temperature": 1.0, "repetition_penalty": 1e-40}),
        (torch.tensor([1.0, 2.0, torch.inf, 3.0]), {"temperature": 1.0, "top_p": 0.5}),
        (torch.full((4,), -torch.inf).index_fill(0, torch.tensor(2), torch.nan), {"temperature": 1.0}),
    ],
    ids=["temperature", "penalty", "infinite logits", "no numbers"],
)
def test_where_there_is_no_probability_to_draw_from_the_best_token_is_taken(
    logits: Tensor, given: dict[str, float]
) -> None:
    """An error would end the requests of all rows."""
    assert int(chooser(prompt_ids=(2,), **given).choose(logits)) == 2


def test_a_penalty_divides_positive_and_multiplies_negative_scores_of_seen_tokens() -> None:
    logits = torch.tensor([3.0, 2.0, -1.0, -1.5])
    source = chooser(prompt_ids=(0,), repetition_penalty=2.0)
    assert [int(source.choose(logits)) for _ in range(2)] == [1, 0]
    negative = torch.tensor([-1.0, -1.5, -9.0, -9.0])
    assert int(chooser(prompt_ids=(0,), repetition_penalty=2.0).choose(negative)) == 1


def test_rows_of_a_batch_keep_their_own_parameters() -> None:
    rows = [chooser(), chooser(prompt_ids=(0,), repetition_penalty=100.0), chooser(temperature=1.0, top_k=1)]
    logits = torch.tensor([[[3.0, 2.0, 1.0, 0.0], [0.0, 1.0, 2.0, 3.0]]] * 3)
    chosen = choose_tokens(logits, rows)
    assert chosen[:, 0].tolist() == [0, 1, 0]
    assert chosen[0].tolist() == [0, 3]


def test_log_probs_are_of_the_unmodified_distribution() -> None:
    found = log_probs_of(LOGITS.repeat(1, 2, 1) + 7, torch.tensor([[0, 3]])).exp()
    assert found.flatten().tolist() == pytest.approx([0.5, 0.1])
