"""Audio of all sessions on its way to the detector: what comes within a tick is scored in one step."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gateway.session.ears import Detector, Ears
from gateway.session.ring import Pcm
from gateway.vad.fsmn import FrameScores

log = logging.getLogger("tandem.gateway.hearing")

TICK = 0.02
# Fewer sessions would mostly wait for nobody: each is heard at once.
_COMPANY = 8
# Samples. So much does not wait for a tick, whether a client sends faster than speech or all have been late.
_LARGE = 3 * 1_600


class Inlet:
    """One session's audio. `heard` gets it with its scores, `failed` why there are none."""

    def __init__(
        self,
        hearing: Hearing,
        ears: Ears,
        heard: Callable[[Pcm, FrameScores], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._hearing = hearing
        self._blocks: list[Pcm] = []
        self._samples = 0
        self.ears, self.heard, self.failed = ears, heard, failed

    def add(self, block: Pcm) -> None:
        """int16 samples [n], to be scored within a tick."""
        self._blocks.append(block)
        self._samples += len(block)
        self._hearing.due(self, at_once=self._samples >= _LARGE)

    def take(self) -> Pcm:
        """What waits, int16 [n]."""
        blocks, self._blocks, self._samples = self._blocks, [], 0
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks or [np.empty(0, np.int16)])

    def flush(self) -> None:
        """Nothing waits any more when this returns."""
        if self._blocks:
            self._hearing.score([self])

    def close(self) -> None:
        """What waits is forgotten."""
        self.take()
        self._hearing.leave(self)


class Hearing:
    """Collects what is due. Used from one event loop; an inlet waits `TICK` seconds at most."""

    def __init__(self, detector: Detector[Any]) -> None:
        self._detector = detector
        self._open: set[Inlet] = set()
        self._due: dict[Inlet, None] = {}
        self._timer: asyncio.Handle | None = None
        self._hurries = False

    def inlet(self, heard: Callable[[Pcm, FrameScores], None], failed: Callable[[Exception], None]) -> Inlet:
        """For a new session; to be closed."""
        inlet = Inlet(self, self._detector.ears(), heard, failed)
        self._open.add(inlet)
        return inlet

    def leave(self, inlet: Inlet) -> None:
        """The inlet is closed."""
        self._open.discard(inlet)
        self._due.pop(inlet, None)

    def due(self, inlet: Inlet, *, at_once: bool) -> None:
        """Something waits at the inlet; `at_once`: with what else is there, but for no tick."""
        if len(self._open) < _COMPANY:
            self.score([inlet])
            return
        self._due[inlet] = None
        loop = asyncio.get_running_loop()
        if at_once and not self._hurries:
            self._hurries = True
            self._replace(loop.call_soon(self._tick))
        elif self._timer is None:
            self._timer = loop.call_later(TICK, self._tick)

    def _replace(self, timer: asyncio.Handle | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = timer

    def _tick(self) -> None:
        self._replace(None)
        self._hurries = False
        self.score(list(self._due))

    def score(self, inlets: Sequence[Inlet]) -> None:
        """Scores what waits at these; the failure of one session is none of the others'."""
        for inlet in inlets:
            self._due.pop(inlet, None)
        self._hear([(inlet, inlet.take()) for inlet in inlets])

    def _hear(self, waiting: Sequence[tuple[Inlet, Pcm]]) -> None:
        try:
            scores = self._detector.push([(inlet.ears, block) for inlet, block in waiting])
        except Exception as error:
            if len(waiting) == 1:
                _fail(waiting[0][0], error)
                return
            # Whose audio it was shows when each is heard alone.
            for one in waiting:
                self._hear([one])
            return
        for (inlet, block), found in zip(waiting, scores, strict=True):
            try:
                inlet.heard(block, found)
            except Exception as error:
                _fail(inlet, error)


def _fail(inlet: Inlet, error: Exception) -> None:
    log.error("a session failed to hear", exc_info=error)
    inlet.failed(error)
