"""Both engines, as running services, give the greedy tokens of the published implementation."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.decoding import CASE_NAMES, RunningDecoder, cases, generate


@pytest.mark.parametrize("name", CASE_NAMES)
def test_greedy_tokens_equal_the_published_ones(decoder: RunningDecoder, name: str) -> None:
    case = cases()[name]
    answer = generate(decoder.stub, case.parts)
    assert answer.token_ids == case.greedy
    assert answer.result.prompt_tokens == len(case.inputs_embeds)
    assert answer.result.completion_tokens == len(case.greedy)


@pytest.mark.parametrize("name", CASE_NAMES)
def test_recorded_prompt_embeddings_give_the_same_tokens(decoder: RunningDecoder, name: str) -> None:
    """Looking ids up in the embedding table gives what the published implementation feeds its model."""
    case = cases()[name]
    assert generate(decoder.stub, [case.inputs_embeds]).token_ids == case.greedy


def test_prompts_of_all_lengths_at_once_give_the_same_tokens(decoder: RunningDecoder) -> None:
    wanted = list(cases().values())
    with ThreadPoolExecutor(len(wanted)) as pool:
        answers = list(pool.map(lambda case: generate(decoder.stub, case.parts), wanted))
    assert [answer.token_ids for answer in answers] == [case.greedy for case in wanted]
