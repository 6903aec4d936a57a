"""What an engine takes and gives, so that every engine answers the same request with the same tokens."""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tandem.errors import Unavailable

FloatArray = npt.NDArray[np.float32]
TokenIds = tuple[int, ...]
Part = TokenIds | FloatArray
"""A run of the prompt: vocabulary ids, or embeddings [n, hidden_size]."""


class EngineDead(Unavailable):
    """The engine stopped for good; the process must be replaced."""

    reason = "ENGINE_DEAD"


class FinishReason(enum.Enum):
    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """Runs of token ids and embeddings, in order; never empty."""

    parts: tuple[Part, ...]

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def token_ids(self) -> list[int]:
        """One id per position; an embedding's position repeats an id that the prompt has anyway.

        A repetition penalty counts all of them, so a placeholder of its own would be penalised too.
        """
        placeholder = next((part[0] for part in self.parts if isinstance(part, tuple)), 0)
        ids: list[int] = []
        for part in self.parts:
            ids += part if isinstance(part, tuple) else [placeholder] * len(part)
        return ids

    def is_token(self) -> list[bool]:
        """True where the position holds a token id, False where it holds an embedding."""
        mask: list[bool] = []
        for part in self.parts:
            mask += [isinstance(part, tuple)] * len(part)
        return mask

    def rows(self, hidden_size: int) -> FloatArray:
        """[len(prompt), hidden_size]: the embeddings in place, zeros where the position holds an id."""
        rows = np.zeros((len(self), hidden_size), np.float32)
        begin = 0
        for part in self.parts:
            if not isinstance(part, tuple):
                rows[begin : begin + len(part)] = part
            begin += len(part)
        return rows


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to choose tokens. The defaults are greedy."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    """0 keeps the whole vocabulary."""
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop_token_ids: frozenset[int] = frozenset()
    """In addition to the model's end-of-sequence ids."""
    ignore_eos: bool = False
    """Generate exactly max_tokens."""


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    request_id: str
    prompt: Prompt
    sampling: Sampling


@dataclass(frozen=True, slots=True)
class TokenDelta:
    """Tokens since the last delta, the stop token left out; `finish` is set on the last one only."""

    token_ids: TokenIds
    log_probs: tuple[float, ...] = ()
    """One per token under the unmodified model, or none when the engine does not report them."""
    finish: FinishReason | None = None


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What a loaded engine is."""

    engine: str
    engine_version: str
    hidden_size: int
    vocab_size: int
    max_model_len: int
    """Prompt and output together, in tokens."""
    max_num_seqs: int
    """Requests decoded side by side."""
    dtype: str
    """A torch name: float32, bfloat16 or float16."""
    eos_token_ids: frozenset[int] = field(default_factory=frozenset)
    tensor_parallel_size: int = 1


@dataclass(frozen=True, slots=True)
class EngineLoad:
    running: int
    waiting: int
    kv_cache_usage: float | None = None
    """0 to 1; None without a paged cache."""


class Engine(Protocol):
    """One loaded language model."""

    @property
    def info(self) -> EngineInfo:
        """Known once `start` has returned."""

    async def start(self) -> None:
        """Load the model without blocking the event loop. Raises when it cannot."""

    def generate(self, request: GenerationRequest) -> AsyncGenerator[TokenDelta, None]:
        """Stream one request's tokens. Closing the generator frees what the engine holds for it.

        The caller has checked the request against `info`. Raises EngineDead.
        """

    def load(self) -> EngineLoad: ...

    async def wait_dead(self) -> str:
        """Return only when the engine has died, with the reason."""

    async def close(self) -> None: ...
