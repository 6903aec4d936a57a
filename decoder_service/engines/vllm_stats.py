"""Reads queue lengths and cache use from vLLM's scheduler through its stat-logger hook."""

from __future__ import annotations

from typing import Any

from decoder_service.engines.base import DraftCounts


class StatLogger:
    """Keeps the newest snapshot. vLLM calls the hooks by name; their arguments grow with its versions."""

    def __init__(self) -> None:
        self.running = 0
        self.kv_cache_usage = 0.0
        self.drafts = DraftCounts()

    def factory(self, *args: Any, **kwargs: Any) -> Any:
        return self

    def record(self, scheduler_stats: Any = None, *args: Any, **kwargs: Any) -> None:
        if scheduler_stats is not None:
            self.running = int(scheduler_stats.num_running_reqs)
            self.kv_cache_usage = float(scheduler_stats.kv_cache_usage)
            if (step := scheduler_stats.spec_decoding_stats) is not None:
                self.drafts = self.drafts.plus(step.num_draft_tokens, step.num_accepted_tokens)

    def log_engine_initialized(self) -> None:
        """Nothing to announce."""

    def log(self) -> None:
        """Nothing to print."""

    def record_sleep_state(self, *args: Any, **kwargs: Any) -> None:
        """The engine is never put to sleep."""

    def record_admission_rejection(self, *args: Any, **kwargs: Any) -> None:
        """Requests are refused before they reach vLLM."""
