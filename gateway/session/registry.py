"""All live sessions of this gateway: admission, timers, and sessions that wait for their client to return."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from gateway.session.config import PartialPolicy, SessionLimits, SessionOptions
from gateway.session.ears import Detector
from gateway.session.events import Ended, EndReason, Failed, Update
from gateway.session.hearing import Hearing
from gateway.session.jobs import Backend
from gateway.session.live import LiveSession
from gateway.session.load import Load
from gateway.session.speakers import SpeakerTracker
from tandem.convert import check_options
from tandem.errors import CapabilityMissing, InvalidRequest, Overloaded

_TICK = 0.25
_DRAIN_POLL = 0.05


@dataclass(frozen=True, slots=True)
class RegistryConfig:
    """Sessions at a time, and language-model partials outstanding in all of them together."""

    limits: SessionLimits = field(default_factory=SessionLimits)
    partials: PartialPolicy = field(default_factory=PartialPolicy)
    max_sessions: int = 1024
    max_llm_partials: int = 32


@dataclass(slots=True)
class Held:
    """A session with the secret its client may return with, and when it lost its client."""

    session: LiveSession
    token: str
    lost_at: float | None = None
    clients: int = 1
    """Which connection it belongs to: the number of those there have been."""


class SessionRegistry:
    """Opens, finds again and ends sessions. `speakers` makes the tracker of one session."""

    def __init__(
        self,
        backend: Backend,
        detector: Detector[Any],
        config: RegistryConfig,
        speakers: Callable[[SessionOptions], SpeakerTracker] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._backend, self._config = backend, config
        self._hearing = Hearing(detector)
        self._speakers, self._clock = speakers, clock
        self._load = Load(config.max_llm_partials, clock)
        self._held: dict[str, Held] = {}
        self._draining = False

    def __len__(self) -> int:
        return len(self._held)

    @property
    def partials(self) -> PartialPolicy:
        """How this deployment shows running speech."""
        return self._config.partials

    @property
    def limits(self) -> SessionLimits:
        return self._config.limits

    @property
    def has_speakers(self) -> bool:
        return self._speakers is not None

    def statistics(self) -> tuple[int, int, float, float]:
        """Open sessions, those with speech, longest backlog, recent time of finals. From any thread."""
        sessions = [held.session for held in list(self._held.values())]
        speaking = sum(session.speaking_since is not None for session in sessions)
        backlog = max((session.backlog for session in sessions), default=0.0)
        return len(sessions), speaking, backlog, self._load.final_seconds

    def open(self, options: SessionOptions) -> Held:
        """A new session. Raises Overloaded, CapabilityMissing, InvalidRequest."""
        if len(self._held) >= self._config.max_sessions or self._draining:
            raise Overloaded(f"{len(self._held)} live sessions are open", retry_after=5.0)
        check_options(options.recognize)
        tracker = None
        if options.recognize.speakers:
            if self._speakers is None:
                raise CapabilityMissing("speakers are not available on this server")
            tracker = self._speakers(options)
        limits, hearing = self._config.limits, self._hearing
        try:
            session = LiveSession(options, self._backend, hearing, limits, self._clock, self._load, tracker)
        except ValueError as error:
            raise InvalidRequest.of("config.endpoint", str(error)) from error
        held = Held(session, secrets.token_urlsafe(16))
        self._held[held.token] = held
        return held

    def resume(self, token: str) -> Held:
        """The session that lost its client (or is about to). InvalidRequest when it is gone."""
        held = self._held.get(token)
        if held is None:
            raise InvalidRequest.of("config.resume_token", "unknown, or its session has ended")
        held.lost_at = None
        held.clients += 1
        held.session.touch()
        return held

    def lost(self, held: Held, client: int) -> None:
        """Connection number `client` broke: unless another took over, the session waits for one."""
        if client != held.clients:
            return
        held.lost_at = self._clock()
        held.session.outbox.detach()

    def close(self, held: Held) -> None:
        """The session is over."""
        self._held.pop(held.token, None)
        held.session.close()

    @contextlib.asynccontextmanager
    async def session(self, options: SessionOptions) -> AsyncIterator[LiveSession]:
        """A session for protocols without resumption: it ends with its connection."""
        held = self.open(options)
        try:
            yield held.session
        finally:
            self.close(held)

    def tick(self) -> None:
        """Timers of all sessions."""
        now = self._clock()
        for held in list(self._held.values()):
            if held.lost_at is None:
                held.session.tick()
            elif now - held.lost_at >= self._config.limits.grace:
                self.close(held)

    async def drain(self, timeout: float) -> None:
        """No new sessions; those that run finish what has been said, tell their clients and end."""
        self._draining = True
        give_up = self._clock() + timeout
        for held in list(self._held.values()):
            held.session.stop(EndReason.DRAIN)
            if held.lost_at is not None:
                self.close(held)
        while self._held and self._clock() < give_up:
            await asyncio.sleep(_DRAIN_POLL)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[SessionRegistry]:
        """The timers run while inside; leaving closes every session."""
        task = asyncio.create_task(self._run())
        try:
            yield self
        finally:
            task.cancel()
            for held in list(self._held.values()):
                self.close(held)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _TICK
            await asyncio.sleep(_TICK)
            self._load.lagged(loop.time() - due)
            self.tick()


def is_last(update: Update) -> bool:
    """Whether nothing follows."""
    return isinstance(update.event, Ended | Failed)
