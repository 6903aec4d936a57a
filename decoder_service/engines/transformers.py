"""The PyTorch engine: continuous batching with transformers on any torch device, in one worker thread."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field

import transformers

from decoder_service.engines.base import (
    EngineDead,
    EngineInfo,
    EngineLoad,
    GenerationRequest,
    TokenDelta,
    joined,
)
from decoder_service.engines.batch import Batch
from decoder_service.engines.model_facts import read_model_facts
from decoder_service.engines.runner import Runner
from decoder_service.engines.settings import EngineSettings

log = logging.getLogger("decoder.transformers")

DEFAULT_MAX_NUM_SEQS = 32


@dataclass(slots=True, eq=False)
class Ticket:
    """One request on its way through the worker; `cancelled` is looked at between steps."""

    request: GenerationRequest
    deltas: asyncio.Queue[TokenDelta | EngineDead] = field(default_factory=asyncio.Queue)
    cancelled: bool = False


class TransformersEngine:
    """New requests join the running batch between two steps; the event loop never waits for the model."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._max_rows = settings.max_num_seqs or DEFAULT_MAX_NUM_SEQS
        self._waiting: deque[Ticket] = deque()
        self._running: list[Ticket] = []
        self._wake = threading.Condition()
        self._closing = False
        self._end_reason: str | None = None
        self._thread: threading.Thread | None = None
        self._death: asyncio.Future[str] | None = None

    @property
    def info(self) -> EngineInfo:
        return self._info

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._death = self._loop.create_future()
        self._runner = await asyncio.to_thread(self._load)
        self._thread = threading.Thread(target=self._work, name="decoder-model", daemon=True)
        self._thread.start()

    def _load(self) -> Runner:
        facts = read_model_facts(self._settings.model)
        runner = Runner(self._settings, facts)
        self._info = EngineInfo(
            engine="transformers",
            engine_version=transformers.__version__,
            hidden_size=facts.hidden_size,
            vocab_size=facts.vocab_size,
            max_model_len=min(self._settings.max_model_len, facts.max_positions),
            max_num_seqs=self._max_rows,
            dtype=str(runner.dtype).removeprefix("torch."),
            eos_token_ids=facts.eos_token_ids,
            speculative_tokens=self._settings.speculative_tokens,
        )
        return runner

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[TokenDelta, None]:
        if request.final_only:
            yield await joined(self._deltas(request))
            return
        async with aclosing(self._deltas(request)) as deltas:
            async for delta in deltas:
                yield delta

    async def _deltas(self, request: GenerationRequest) -> AsyncGenerator[TokenDelta, None]:
        ticket = Ticket(request)
        with self._wake:
            # Under the lock that the worker takes for its end: who enters is served, or told of that end.
            self._check_alive()
            self._enter(ticket)
            self._wake.notify()
        try:
            while True:
                delta = await ticket.deltas.get()
                if isinstance(delta, EngineDead):
                    raise delta
                yield delta
                if delta.finish is not None:
                    return
        finally:
            self._leave(ticket)

    def _enter(self, ticket: Ticket) -> None:
        """Urgent requests wait in front of the others."""
        place = len(self._waiting)
        if ticket.request.urgent:
            place = sum(waiting.request.urgent for waiting in self._waiting)
        self._waiting.insert(place, ticket)

    def _check_alive(self) -> None:
        if self._death is None or self._closing:
            raise EngineDead("the engine is not running")
        if self._end_reason is not None:
            raise _stopped(self._end_reason)

    def _leave(self, ticket: Ticket) -> None:
        ticket.cancelled = True
        with self._wake, suppress(ValueError):
            self._waiting.remove(ticket)

    def load(self) -> EngineLoad:
        return EngineLoad(len(self._running), len(self._waiting), drafts=self._runner.drafts)

    async def wait_dead(self) -> str:
        if self._death is None:
            raise RuntimeError("the engine was never started")
        return await asyncio.shield(self._death)

    async def close(self) -> None:
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    # Everything below runs in the worker thread.

    def _work(self) -> None:
        try:
            batch: Batch | None = None
            while self._wait_for_work():
                batch = self._step(batch)
            self._fail("the engine was closed")
        except (
            Exception
        ) as error:  # whatever the model raised, callers must hear of it and the process must end
            log.exception("the model failed")
            self._fail(f"{type(error).__name__}: {error}")
            self._loop.call_soon_threadsafe(self._die, f"{type(error).__name__}: {error}")

    def _wait_for_work(self) -> bool:
        with self._wake:
            self._wake.wait_for(lambda: self._closing or self._waiting or self._running)
            return not self._closing

    def _step(self, batch: Batch | None) -> Batch | None:
        """Drop what was cancelled, then either admit newcomers or decode one token of everyone."""
        batch = self._retain(batch, [not ticket.cancelled for ticket in self._running])
        newcomers = self._admit()
        if newcomers:
            fresh, deltas = self._runner.prefill([ticket.request for ticket in newcomers])
            if batch is None:
                batch = fresh
            else:
                batch.join(fresh)
        elif batch is not None:
            deltas = self._runner.decode(batch)
        else:
            return None
        advanced = self._running[-len(deltas) :]
        going_on = [True] * (len(batch) - len(deltas)) + [delta.finish is None for delta in deltas]
        batch = self._retain(batch, going_on)
        self._publish(advanced, deltas)
        return batch

    def _admit(self) -> list[Ticket]:
        """The newcomers. They count as running from now on, so that they hear of a prefill that fails."""
        with self._wake:
            free = self._max_rows - len(self._running)
            candidates = list(self._waiting)[:free]
            count = self._runner.prefill_size([len(ticket.request.prompt) for ticket in candidates])
            newcomers = [self._waiting.popleft() for _ in range(count)]
            self._running = [*self._running, *newcomers]
            return newcomers

    def _retain(self, batch: Batch | None, keep: Sequence[bool]) -> Batch | None:
        if batch is None or all(keep):
            return batch
        indices = [index for index, kept in enumerate(keep) if kept]
        if indices:
            batch.keep(indices)
        # Not before: when the batch fails, those that are done have not been told yet.
        self._running = [self._running[index] for index in indices]
        return batch if indices else None

    def _publish(self, tickets: Sequence[Ticket], deltas: Sequence[TokenDelta]) -> None:
        pairs = list(zip(tickets, deltas, strict=True))
        self._loop.call_soon_threadsafe(_deliver, pairs)

    def _fail(self, reason: str) -> None:
        """Tell everyone here of the end, and leave it for those who come later."""
        with self._wake:
            self._end_reason = reason
            tickets = [*self._running, *self._waiting]
            self._running = []
            self._waiting.clear()
        error = _stopped(reason)
        self._loop.call_soon_threadsafe(_deliver, [(ticket, error) for ticket in tickets])

    def _die(self, reason: str) -> None:
        if self._death is not None and not self._death.done():
            self._death.set_result(reason)


def _stopped(reason: str) -> EngineDead:
    return EngineDead(f"the engine stopped: {reason}")


def _deliver(pairs: Sequence[tuple[Ticket, TokenDelta | EngineDead]]) -> None:
    for ticket, delta in pairs:
        ticket.deltas.put_nowait(delta)
