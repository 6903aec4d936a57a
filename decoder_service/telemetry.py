"""Prometheus metrics of the decoder tier: requests in the engine, its cache, tokens."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from prometheus_client import Counter, Histogram

from decoder_service.admission import Admission, TokenRate
from decoder_service.engines.base import EngineLoad
from tandem.rpc.metrics import LATENCY, snapshot

_PROMPT = Counter("tandem_decoder_prompt_tokens", "Prompt tokens, positions of audio included.")
_TOKENS = Counter("tandem_decoder_tokens", "Tokens generated.")
_STAGES = Histogram(
    "tandem_decoder_stage_seconds",
    "Receiving the prompt, from there to the first token, and from there to the last.",
    ("stage",),
    buckets=LATENCY,
)
_TOGETHER = Histogram(
    "tandem_decoder_prompts_together", "Prompts in one message of GenerateBatch.", buckets=(1, 2, 4, 8, 16)
)
_READINGS = {
    "tandem_decoder_running_requests": "Requests being decoded.",
    "tandem_decoder_waiting_requests": "Requests waiting for a place in the engine.",
    "tandem_decoder_max_waiting_requests": "Requests that may wait before more are refused.",
    "tandem_decoder_tokens_per_second": "Tokens generated per second over the last ten seconds.",
    "tandem_decoder_kv_cache_usage": "Share of the key-value cache in use, 0 to 1.",
    "tandem_decoder_draft_tokens_total": "Draft tokens verified.",
    "tandem_decoder_accepted_draft_tokens_total": "Draft tokens that the model agreed with.",
}


def observe_request(
    prompt_tokens: int, tokens: int, receive: float, first: float | None, total: float
) -> None:
    """Count a request that has ended well. Seconds from its start to each milestone, where it is known."""
    _PROMPT.inc(prompt_tokens)
    _TOKENS.inc(tokens)
    _STAGES.labels("receive").observe(receive)
    if tokens and first is not None:
        _STAGES.labels("first_token").observe(first - receive)
    _STAGES.labels("generate").observe(total - receive)


def observe_message(prompts: int) -> None:
    """Count prompts that came together."""
    _TOGETHER.observe(prompts)


def load_gauges(
    load: Callable[[], EngineLoad], admission: Admission, rate: TokenRate
) -> AbstractContextManager[None]:
    """Gauges of the engine while the context is open; cache usage only where the engine has a paged cache."""

    def values() -> dict[str, float]:
        now = load()
        queue = (now.running, now.waiting, admission.max_waiting, rate.per_second())
        numbers = (*queue, now.kv_cache_usage, now.drafts.drafted, now.drafts.accepted)
        pairs = zip(_READINGS, numbers, strict=True)
        return {name: float(number) for name, number in pairs if number is not None}

    return snapshot(_READINGS, values)
