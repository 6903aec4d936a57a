"""From the client's samples to frame scores of the voice activity detector, in steps of at least 60 ms."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from gateway.session.ring import Pcm
from gateway.vad.fbank import FRAME_SHIFT
from gateway.vad.fsmn import FrameScores, FsmnVad

# The network is asked for at least a step; a client's frame of 100 ms is then used up at once.
_STEP = 6 * FRAME_SHIFT
_UNIT = 2 * FRAME_SHIFT


class Ears(Protocol):
    """Scores of one stream; its own state, nobody else's."""

    def push(self, block: Pcm) -> FrameScores:
        """Adds int16 samples [n]; the scores that became known."""

    def finish(self) -> FrameScores:
        """The last scores."""


class VadEars:
    """The FSMN network: small frames are collected, so that its cost does not depend on the client."""

    def __init__(self, model: FsmnVad) -> None:
        self._stream = model.stream()
        self._rest: Pcm = np.empty(0, dtype=np.int16)

    def push(self, block: Pcm) -> FrameScores:
        samples = np.concatenate([self._rest, block]) if len(self._rest) else block
        whole = len(samples) // _UNIT * _UNIT if len(samples) >= _STEP else 0
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
