"""What vLLM is told to speculate on; tests/integration/test_drafts.py has the real vLLM do it."""

from __future__ import annotations

from types import SimpleNamespace

from decoder_service.engines.vllm_draft import DRAFT, DraftProposer

MAX_MODEL_LEN = 100


class Worker:
    """The parts of vLLM's model runner that the proposer reads, and rows of generated tokens."""

    def __init__(self, *, eager: bool) -> None:
        self.proposer = DraftProposer(
            SimpleNamespace(
                speculative_config=SimpleNamespace(num_speculative_tokens=4),
                model_config=SimpleNamespace(max_model_len=MAX_MODEL_LEN, enforce_eager=eager),
            )
        )
        self.requests: dict[str, SimpleNamespace] = {}
        self.input_batch = SimpleNamespace(req_ids=[])
        self.proposer.connect(self)

    def add(self, name: str, draft: list[int] | None) -> None:
        extra = None if draft is None else {DRAFT: draft}
        self.requests[name] = SimpleNamespace(
            output_token_ids=[], sampling_params=SimpleNamespace(extra_args=extra)
        )

    def step(self, rows: dict[str, list[int]], length: int = 50) -> list[list[int]]:
        """What is proposed after each row got these tokens and has `length` altogether."""
        for name, fresh in rows.items():
            self.requests[name].output_token_ids += fresh
        self.input_batch.req_ids = list(rows)
        return self.proposer.propose(list(rows.values()), [length] * len(rows))


def test_each_row_goes_on_in_its_own_draft() -> None:
    worker = Worker(eager=True)
    worker.add("a", [1, 2, 3, 4, 5, 6, 7])
    worker.add("b", [11, 12, 13])
    worker.add("none", None)
    assert worker.step({"a": [1], "none": [9], "b": []}) == [[2, 3, 4, 5], [], []]
    assert worker.step({"b": [11], "a": [2, 3]}) == [[12, 13], [4, 5, 6, 7]]


def test_a_request_that_made_room_goes_on_where_its_output_is() -> None:
    worker = Worker(eager=True)
    worker.add("a", [1, 2, 3, 4, 5, 6, 7])
    worker.add("b", [11, 12, 13])
    worker.step({"a": [1, 2], "b": [11]})
    worker.step({"b": [12]})
    assert worker.step({"b": [13], "a": [3]}) == [[], [4, 5, 6, 7]]


def test_with_graphs_every_row_with_a_draft_has_the_same_length() -> None:
    worker = Worker(eager=False)
    worker.add("a", [1, 2, 3])
    worker.add("none", None)
    assert worker.step({"a": [1], "none": [9]}) == [[2, 3, 0, 0], []]


def test_proposals_end_with_the_models_length() -> None:
    worker = Worker(eager=False)
    worker.add("a", [1, 2, 3, 4, 5])
    assert worker.step({"a": [1]}, MAX_MODEL_LEN - 3) == [[2, 3]]
    assert worker.step({"a": [2]}, MAX_MODEL_LEN) == [[]]
