"""What diarization is given and what it returns. Times are seconds from the start of the recording."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
TimeArray = npt.NDArray[np.float64]
LabelArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class SegmentEmbeddings:
    """A stretch of speech with an embedding for each window of it.

    embeddings: float32 [n, d], any length; window i covers starts[i] to ends[i]. Windows are in order and
    may overlap. `channel` is 0 for the mix, else 1-based.
    """

    start: float
    end: float
    embeddings: FloatArray
    starts: TimeArray
    ends: TimeArray
    channel: int = 0

    def shifted(self, seconds: float) -> SegmentEmbeddings:
        """The same voices `seconds` later."""
        return replace(
            self,
            start=self.start + seconds,
            end=self.end + seconds,
            starts=self.starts + seconds,
            ends=self.ends + seconds,
        )

    @property
    def borders(self) -> TimeArray:
        """[n + 1] times that give each moment of the segment to the window whose centre is nearest."""
        centres = (self.starts + self.ends) / 2
        inner = (centres[1:] + centres[:-1]) / 2
        borders: TimeArray = np.clip(np.concatenate(([self.start], inner, [self.end])), self.start, self.end)
        return borders

    @property
    def seconds(self) -> TimeArray:
        """[n] seconds of the segment that each window stands for."""
        return np.diff(self.borders)


@dataclass(frozen=True, slots=True)
class Turn:
    """One speaker from start to end in a channel; numbered by first appearance in any channel."""

    speaker: int
    start: float
    end: float
    channel: int = 0

    @property
    def label(self) -> str:
        return speaker_label(self.speaker)


def speaker_label(speaker: int) -> str:
    """ "SPK0" for speaker 0."""
    return f"SPK{speaker}"
