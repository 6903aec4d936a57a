"""What an engine takes and gives, so that every engine answers the same request with the same tokens."""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Protocol

from tandem.errors import Unavailable
from tandem.rpc.tensors import WireTensor

TokenIds = tuple[int, ...]
Part = TokenIds | WireTensor
"""A run of the prompt: vocabulary ids, or embeddings [n, hidden_size] in the float type they came in."""


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

    def end(self) -> TokenIds:
        """The ids after the last embedding."""
        last = self.parts[-1]
        return last if isinstance(last, tuple) else ()

    def is_token(self) -> list[bool]:
        """True where the position holds a token id, False where it holds an embedding."""
        mask: list[bool] = []
        for part in self.parts:
            mask += [isinstance(part, tuple)] * len(part)
        return mask


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
    final_only: bool = False
    """Nobody reads tokens before the last one: one delta with all of them is enough."""
    draft: TokenIds = ()
    """What the answer probably is: an engine may verify many tokens of it at a time. It changes no answer."""
    urgent: bool = False
    """Where requests wait for a place, before those that are not."""

    @property
    def verifiable(self) -> TokenIds:
        """The draft where tokens are chosen by the model alone; none where chance or a penalty has a say."""
        greedy = self.sampling.temperature == 0 and self.sampling.repetition_penalty == 1.0
        return self.draft if greedy else ()


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
    speculative_tokens: int = 0
    """Draft tokens verified in one step; 0 leaves drafts unused."""


@dataclass(frozen=True, slots=True)
class DraftCounts:
    """Draft tokens since the engine started: those fed to the model, and those that were its own choice."""

    drafted: int = 0
    accepted: int = 0

    def plus(self, drafted: int, accepted: int) -> DraftCounts:
        return DraftCounts(self.drafted + drafted, self.accepted + accepted)


@dataclass(frozen=True, slots=True)
class EngineLoad:
    running: int
    waiting: int
    kv_cache_usage: float | None = None
    """0 to 1; None without a paged cache."""
    drafts: DraftCounts = DraftCounts()


class Engine(Protocol):
    """One loaded language model."""

    @property
    def info(self) -> EngineInfo:
        """Known once `start` has returned."""

    async def start(self) -> None:
        """Load the model without blocking the event loop. Raises when it cannot."""

    def generate(self, request: GenerationRequest) -> AsyncGenerator[TokenDelta, None]:
        """Stream one request's tokens, or give one delta where `final_only` asks for it.

        Closing the generator frees what the engine holds for the request.

        The caller has checked the request against `info`. Raises EngineDead.
        """

    def load(self) -> EngineLoad: ...

    async def wait_dead(self) -> str:
        """Return only when the engine has died, with the reason."""

    async def close(self) -> None: ...


async def joined(deltas: AsyncGenerator[TokenDelta, None]) -> TokenDelta:
    """One delta of all that a request gives; raises what the generator raises."""
    tokens: list[int] = []
    log_probs: list[float] = []
    finish: FinishReason | None = None
    async with aclosing(deltas) as stream:
        async for delta in stream:
            tokens += delta.token_ids
            log_probs += delta.log_probs
            finish = delta.finish
    return TokenDelta(tuple(tokens), tuple(log_probs), finish)
