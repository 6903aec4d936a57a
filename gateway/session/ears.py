"""From the client's samples to frame scores of the voice activity detector, in steps of 60 ms."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from gateway.session.ring import Pcm
from gateway.vad.fbank import FRAME_SHIFT
from gateway.vad.fsmn import FrameScores, FsmnVad

_STEP = 6 * FRAME_SHIFT


class Ears(Protocol):
    """Scores of one stream; its own state, nobody else's."""

    def push(self, block: Pcm) -> FrameScores:
        """Adds int16 samples [n]; the scores that became known."""

    def finish(self) -> FrameScores:
        """The last scores."""


class VadEars:
    """The FSMN network, asked for whole steps only: its cost does not depend on how clients cut frames."""

    def __init__(self, model: FsmnVad) -> None:
        self._stream = model.stream()
        self._rest: Pcm = np.empty(0, dtype=np.int16)

    def push(self, block: Pcm) -> FrameScores:
        samples = np.concatenate([self._rest, block]) if len(self._rest) else block
        whole = len(samples) // _STEP * _STEP
        self._rest = samples[whole:]
        if not whole:
            return FrameScores(np.empty(0, np.float32), np.empty(0, np.float32))
        return self._stream.push(samples[:whole].astype(np.float32) / np.float32(32768))

    def finish(self) -> FrameScores:
        rest = self._stream.push(self._rest.astype(np.float32) / np.float32(32768))
        tail = self._stream.finish()
        return FrameScores(
            np.concatenate([rest.silence, tail.silence]), np.concatenate([rest.loudness, tail.loudness])
        )
