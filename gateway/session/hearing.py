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
# More than a client in real time has on its way: whoever sends faster is not held up.
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
        """int16 samples [n], to be scored now or within a tick."""
        self._blocks.append(block)
        self._samples += len(block)
        if self._samples >= _LARGE:
            self.flush()
        else:
            self._hearing.due(self)

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
        self._timer: asyncio.TimerHandle | None = None

    def inlet(self, heard: Callable[[Pcm, FrameScores], None], failed: Callable[[Exception], None]) -> Inlet:
        """For a new session; to be closed."""
        inlet = Inlet(self, self._detector.ears(), heard, failed)
        self._open.add(inlet)
        return inlet

    def leave(self, inlet: Inlet) -> None:
        """The inlet is closed."""
        self._open.discard(inlet)
        self._due.pop(inlet, None)

    def due(self, inlet: Inlet) -> None:
        """Something waits at the inlet."""
        if len(self._open) < _COMPANY:
            self.score([inlet])
            return
        self._due[inlet] = None
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TICK, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.score(list(self._due))

    def score(self, inlets: Sequence[Inlet]) -> None:
        """Scores what waits at these; the failure of one session is none of the others'."""
        for inlet in inlets:
            self._due.pop(inlet, None)
        waiting = [(inlet, inlet.take()) for inlet in inlets]
        try:
            scores = self._detector.push([(inlet.ears, block) for inlet, block in waiting])
        except Exception as error:
            log.exception("voice activity detection failed")
            for inlet in inlets:
                inlet.failed(error)
            return
        for (inlet, block), found in zip(waiting, scores, strict=True):
            try:
                inlet.heard(block, found)
            except Exception as error:
                log.exception("a session failed")
                inlet.failed(error)
