"""Sessions on the event loop whose decodes take no time: what their registry needs, and a clock to turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from gateway.pipeline import Recognizer
from gateway.service import GatewayService, ServiceLimits
from gateway.session.config import SessionLimits
from gateway.session.ears import Apart
from gateway.session.jobs import Abilities, CtcHeard, Decoded, DecodeJob, JobKind
from gateway.session.registry import RegistryConfig, SessionRegistry
from gateway.session.ring import Pcm
from gateway.speakers.types import Turn
from tandem.errors import TandemError
from tandem.results import RecognizeOptions
from tests.unit.gateway.session.simulation import ScriptEars, ScriptedEncoder


class InstantBackend:
    """The scripted encoder without latency."""

    abilities = Abilities(ctc=True, max_segment=60.0)

    def __init__(self) -> None:
        self._encoder = ScriptedEncoder(lambda job: 0.0)
        self.asked: list[RecognizeOptions] = []
        self.error: TandemError | None = None
        self.released: list[int] = []
        self.closed = False

    def session(self) -> InstantBackend:
        return self

    def release(self, index: int) -> None:
        self.released.append(index)

    def close(self) -> None:
        self.closed = True

    async def ctc(self, job: DecodeJob) -> CtcHeard:
        answer = self._encoder.answer(job)
        assert isinstance(answer, CtcHeard)
        return answer

    async def decode(self, job: DecodeJob, drafted: Callable[[Decoded], None]) -> Decoded:
        self.asked.append(job.options)
        if self.error is not None:
            raise self.error
        answer = self._encoder.answer(job)
        assert isinstance(answer, Decoded)
        if job.kind is JobKind.FINAL and not job.words_wanted.is_set():
            drafted(answer)
            await job.words_wanted.wait()
        return answer


class Voices:
    """A tracker that is slow to embed and changes its mind at the end."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._finals: list[tuple[float, float]] = []

    async def embed(self, samples: Pcm) -> object:
        await asyncio.sleep(self._delay)
        return len(samples)

    def assign(self, index: int, start: float, end: float, voice: object) -> Sequence[Turn]:
        self._finals.append((start, end))
        return [Turn(index, start, end)]

    async def finish(self) -> Mapping[int, Sequence[Turn]]:
        return {index: [Turn(index % 2, *times)] for index, times in enumerate(self._finals)}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class InstantService:
    """What the protocols answer with, over such sessions."""

    def __init__(self) -> None:
        self.clock, self.backend = Clock(), InstantBackend()
        config = RegistryConfig(SessionLimits(idle=60, max_duration=3600))
        self.sessions = SessionRegistry(
            self.backend, Apart(ScriptEars), config, lambda options: Voices(0.0), self.clock
        )
        self.service = GatewayService(ServiceLimits(1, 1.0), cast(Recognizer, object()), self.sessions)
