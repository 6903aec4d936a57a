"""Answers as long as speech would make them, whatever the weights say: for benchmarks of random weights."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from dataclasses import replace

from decoder_service.engines.base import (
    Engine,
    EngineInfo,
    EngineLoad,
    GenerationRequest,
    Prompt,
    Sampling,
    TokenDelta,
)


class ForcedLengthEngine:
    """An engine whose answers have `rate` tokens for each audio embedding, up to the request's max_tokens.

    Stop tokens are generated like any other.
    """

    def __init__(self, engine: Engine, rate: float) -> None:
        self._engine = engine
        self._rate = rate

    @property
    def info(self) -> EngineInfo:
        return self._engine.info

    async def start(self) -> None:
        await self._engine.start()

    def generate(self, request: GenerationRequest) -> AsyncGenerator[TokenDelta, None]:
        return self._engine.generate(replace(request, sampling=self._forced(request)))

    def load(self) -> EngineLoad:
        return self._engine.load()

    async def wait_dead(self) -> str:
        return await self._engine.wait_dead()

    async def close(self) -> None:
        await self._engine.close()

    def _forced(self, request: GenerationRequest) -> Sampling:
        wanted = max(1, math.ceil(embeddings(request.prompt) * self._rate))
        sampling = request.sampling
        return replace(sampling, ignore_eos=True, max_tokens=min(wanted, sampling.max_tokens))


def embeddings(prompt: Prompt) -> int:
    """Positions of the prompt that hold embeddings."""
    return sum(len(part) for part in prompt.parts if not isinstance(part, tuple))
