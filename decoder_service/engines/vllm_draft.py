"""Drafts for vLLM's speculative decoding: in vLLM's worker process, proposes from each request's own draft.

vLLM makes the proposer by name (speculative method "custom_class") and tells it tokens only, so the worker
introduces it to the model runner, which knows the requests. A draft travels in its request's sampling
parameters (`extra_args`), which vLLM passes on to its workers unread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from decoder_service.engines.draft import DraftFollower

DRAFT = "draft_token_ids"
"""The key in SamplingParams.extra_args."""


def speculation(count: int) -> dict[str, Any]:
    """Engine arguments that have vLLM verify up to `count` draft tokens of a request in one step."""
    proposer = {"method": "custom_class", "model": f"{__name__}.{DraftProposer.__name__}"}
    return {
        "speculative_config": {**proposer, "num_speculative_tokens": count},
        "worker_extension_cls": f"{__name__}.{DraftWorker.__name__}",
    }


class DraftWorker:
    """What is added to vLLM's worker; `model_runner` is the worker's own."""

    model_runner: Any

    def connect_drafts(self) -> None:
        """Called once, when the model is loaded."""
        self.model_runner.drafter.connect(self.model_runner)


class DraftProposer:
    """Follows every running request through its draft. vLLM calls `load_model` and `propose`."""

    def __init__(self, vllm_config: Any) -> None:
        self._count: int = vllm_config.speculative_config.num_speculative_tokens
        self._max_model_len: int = vllm_config.model_config.max_model_len
        # CUDA graphs hold steps in which every request has the same number of tokens.
        self._fill: bool = not vllm_config.model_config.enforce_eager
        self._followers: dict[str, DraftFollower] = {}
        self._runner: Any = None

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        """There is no model to load."""

    def connect(self, runner: Any) -> None:
        self._runner = runner

    def propose(
        self, sampled_token_ids: Sequence[Sequence[int]], num_tokens: Sequence[int], *_: Any, **__: Any
    ) -> list[list[int]]:
        """Draft tokens of each row after the tokens that it just got; none while its prompt is processed.

        `num_tokens` is each row's length, prompt and output together.
        """
        if self._runner is None:
            return [[] for _ in sampled_token_ids]
        batch = self._runner.input_batch
        self._followers = {
            request_id: self._follow(request_id, fresh)
            for request_id, fresh in zip(batch.req_ids, sampled_token_ids, strict=False)
        }
        return [
            self._draft(follower, self._max_model_len - int(length) - 1) if fresh else []
            for follower, fresh, length in zip(
                self._followers.values(), sampled_token_ids, num_tokens, strict=False
            )
        ]

    def _draft(self, follower: DraftFollower, room: int) -> list[int]:
        count = max(0, min(self._count, room))
        if not self._fill:
            return follower.propose_likely(count)
        draft = follower.propose(count)
        return draft + [0] * (count - len(draft)) if follower.has_draft else draft

    def _follow(self, request_id: str, fresh: Sequence[int]) -> DraftFollower:
        known = self._followers.get(request_id)
        if known is not None:
            known.accept(fresh)
            return known
        # New, or back after it had to make room: its output so far includes the fresh tokens.
        state = self._runner.requests[request_id]
        follower = DraftFollower((state.sampling_params.extra_args or {}).get(DRAFT, ()))
        follower.accept(state.output_token_ids)
        return follower
