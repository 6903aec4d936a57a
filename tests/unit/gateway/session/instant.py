"""Sessions on the event loop whose decodes take no time: what their registry needs, and a clock to turn."""

from __future__ import annotations

from gateway.session.jobs import Abilities, CtcHeard, Decoded, DecodeJob
from tandem.results import RecognizeOptions
from tests.unit.gateway.session.simulation import ScriptedEncoder


class InstantBackend:
    """The scripted encoder without latency."""

    abilities = Abilities(ctc=True, max_segment=60.0)

    def __init__(self) -> None:
        self._encoder = ScriptedEncoder(lambda job: 0.0)
        self.asked: list[RecognizeOptions] = []
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

    async def decode(self, job: DecodeJob) -> Decoded:
        self.asked.append(job.options)
        answer = self._encoder.answer(job)
        assert isinstance(answer, Decoded)
        return answer


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now
