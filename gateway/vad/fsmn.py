"""FSMN-VAD: silence probability of every 10 ms frame, of whole recordings and of any number of live streams.

Live streams advance together: `FsmnVad.push` takes the new samples of many streams and makes one pass for all
whose number of new frames is equal, with the scores that each would get alone. A stream costs less than half
of what it does by itself when 16 go together:

    vad = FsmnVad(directory)
    streams = [vad.stream() for _ in sessions]
    scores = vad.push([(stream, samples) for stream, samples in zip(streams, new_samples)])
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gateway.vad.fbank import FRAME_LENGTH, FRAME_SHIFT, NUM_MELS, fbank
from gateway.vad.network import FsmnNetwork
from gateway.vad.weights import STACK, read_weights

FloatArray = NDArray[np.float32]

_LOOKAHEAD = 2


@dataclass(frozen=True)
class FrameScores:
    """Scores of consecutive frames: silence probability float32 [n], loudness float32 [n].

    Loudness is the mean log-mel energy of the frame; only differences mean something.
    """

    silence: FloatArray
    loudness: FloatArray

    def __len__(self) -> int:
        return len(self.silence)


class FsmnVad:
    """The loaded network; safe to share between threads, since all state lives in FsmnStream."""

    def __init__(self, directory: Path) -> None:
        """Raises VadModelError where the weights are missing or not those of FSMN-VAD."""
        self._network = FsmnNetwork(read_weights(directory))

    def stream(self) -> FsmnStream:
        """Fresh state for one recording or live stream."""
        return FsmnStream(self, self._network.initial_memory(1)[0])

    def push(self, heard: Sequence[tuple[FsmnStream, FloatArray]]) -> list[FrameScores]:
        """Adds samples, float32 [n] in [-1, 1], to streams of this network; the scores that became known.

        Samples of streams may differ in number. Raises ValueError if a stream is named twice.
        """
        if len({id(stream) for stream, _ in heard}) < len(heard):
            raise ValueError("a stream is named twice in one step")
        audio = [stream.unframed(samples) for stream, samples in heard]
        alike: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
        for index, (stream, _) in enumerate(heard):
            alike[len(audio[index]), len(stream.features)].append(index)
        scores: dict[int, FrameScores] = {}
        for group in alike.values():
            streams = [heard[index][0] for index in group]
            together = _stacked([audio[index] for index in group])
            features = fbank(together)
            for stream, rest in zip(streams, together[:, features.shape[1] * FRAME_SHIFT :], strict=True):
                stream.rest = rest.copy()
            scores.update(zip(group, self.score(streams, features), strict=True))
        return [scores[index] for index in range(len(heard))]

    def score(self, streams: Sequence[FsmnStream], new: FloatArray) -> list[FrameScores]:
        """Adds frames, float32 [streams, m, 80], to streams that hold equally many; the scores then known."""
        if new.shape[1] and not len(streams[0].features):
            new = np.concatenate([np.repeat(new[:, :1], STACK - 1 - _LOOKAHEAD, axis=1), new], axis=1)
        features = np.concatenate([np.stack([stream.features for stream in streams]), new], axis=1)
        count = max(0, features.shape[1] - STACK + 1)
        for stream, held in zip(streams, features[:, count:], strict=True):
            stream.features = held.copy()
        if not count:
            return [FrameScores(np.empty(0, np.float32), np.empty(0, np.float32)) for _ in streams]
        memory = np.stack([stream.memory for stream in streams])
        silence, memory = self._network.advance(features, memory)
        for stream, remembered in zip(streams, memory, strict=True):
            stream.memory = remembered.copy()
        loudness = features[:, _LOOKAHEAD : _LOOKAHEAD + count].mean(axis=2)
        return [FrameScores(*both) for both in zip(silence, loudness, strict=True)]


class FsmnStream:
    """Scores of one stream; frame t is known once frame t + 2 is complete.

    rest: samples that are no whole frame yet, float32 [r]. features: the last frames, float32 [up to 4, 80].
    memory: the network's, float32 [4, 128, 19]. All are for FsmnVad alone.
    """

    def __init__(self, model: FsmnVad, memory: FloatArray) -> None:
        self._model = model
        self.rest = np.empty(0, dtype=np.float32)
        self.features = np.empty((0, NUM_MELS), dtype=np.float32)
        self.memory = memory

    def push(self, samples: FloatArray) -> FrameScores:
        """Adds samples, float32 [n] in [-1, 1], and returns the scores that became known."""
        return self._model.push([(self, samples)])[0]

    def finish(self) -> FrameScores:
        """The last frames; nothing can be pushed afterwards."""
        new = np.repeat(self.features[-1:], _LOOKAHEAD, axis=0)
        return self._model.score([self], new[None])[0]

    def unframed(self, samples: FloatArray) -> FloatArray:
        """Samples that frames are to be made of: the rest, and these."""
        return np.concatenate([self.rest, np.asarray(samples, dtype=np.float32)])


def _stacked(audio: list[FloatArray]) -> FloatArray:
    """[len(audio), n]; no copy of a single one, which may be a minute long."""
    return np.stack(audio) if len(audio) > 1 else audio[0][None]


def frame_ready_ms(frame: int) -> float:
    """How much audio, in ms, must have arrived before `frame` has a score."""
    return ((frame + _LOOKAHEAD) * FRAME_SHIFT + FRAME_LENGTH) / 16.0
