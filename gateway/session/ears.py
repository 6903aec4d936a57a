"""From the client's samples to frame scores of the voice activity detector, in steps of at least 60 ms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from gateway.session.ring import Pcm
from gateway.vad.fbank import FRAME_SHIFT
from gateway.vad.fsmn import FrameScores, FsmnVad

FloatArray = NDArray[np.float32]

# The network is asked for at least a step; a client's frame of 100 ms is then used up at once.
_STEP = 6 * FRAME_SHIFT
_UNIT = 2 * FRAME_SHIFT
_FULL_SCALE = np.float32(1 / 32_768)
_NO_SCORES = FrameScores(np.empty(0, np.float32), np.empty(0, np.float32))


class Ears(Protocol):
    """Scores of one stream; its own state, nobody else's."""

    def push(self, block: Pcm) -> FrameScores:
        """Adds int16 samples [n]; the scores that became known."""

    def finish(self) -> FrameScores:
        """The last scores."""


AnyEars = TypeVar("AnyEars", bound=Ears)


class Detector(Protocol[AnyEars]):
    """The ears of all sessions of a gateway."""

    def ears(self) -> AnyEars:
        """Of a new session."""
        ...

    def push(self, heard: Sequence[tuple[AnyEars, Pcm]]) -> list[FrameScores]:
        """What each of these, all different, would give for its samples alone; if it raises, no change."""
        ...


class Apart:
    """Ears that have nothing in common."""

    def __init__(self, make: Callable[[], Ears]) -> None:
        self.ears = make

    def push(self, heard: Sequence[tuple[Ears, Pcm]]) -> list[FrameScores]:
        return [ears.push(block) for ears, block in heard]


class VadEars:
    """The FSMN network: small frames are collected, so that its cost does not depend on the client."""

    def __init__(self, model: FsmnVad) -> None:
        self.stream = model.stream()
        self.rest: Pcm = np.empty(0, dtype=np.int16)
        """Heard, but not by the network yet; int16 [r]."""

    def push(self, block: Pcm) -> FrameScores:
        samples, rest = self.split(block)
        scores = self.stream.push(samples)
        self.rest = rest
        return scores

    def finish(self) -> FrameScores:
        rest = self.stream.push(_floats(self.rest))
        tail = self.stream.finish()
        return FrameScores(
            np.concatenate([rest.silence, tail.silence]), np.concatenate([rest.loudness, tail.loudness])
        )

    def split(self, block: Pcm) -> tuple[FloatArray, Pcm]:
        """The samples that the network gets now, and the rest, which waits for more."""
        samples = np.concatenate([self.rest, block]) if len(self.rest) else block
        whole = len(samples) // _UNIT * _UNIT if len(samples) >= _STEP else 0
        return _floats(samples[:whole]), samples[whole:]


class LiveVad:
    """The network for all sessions of a gateway: their streams advance together."""

    def __init__(self, model: FsmnVad) -> None:
        self._model = model

    def ears(self) -> VadEars:
        return VadEars(self._model)

    def push(self, heard: Sequence[tuple[VadEars, Pcm]]) -> list[FrameScores]:
        parts = [ears.split(block) for ears, block in heard]
        known = zip(heard, parts, strict=True)
        scores = iter(
            self._model.push([(ears.stream, samples) for (ears, _), (samples, _) in known if len(samples)])
        )
        for (ears, _), (_, rest) in zip(heard, parts, strict=True):
            ears.rest = rest
        return [next(scores) if len(samples) else _NO_SCORES for samples, _ in parts]


def _floats(samples: Pcm) -> FloatArray:
    """float32 [n] in [-1, 1]."""
    return np.multiply(samples, _FULL_SCALE, dtype=np.float32)
