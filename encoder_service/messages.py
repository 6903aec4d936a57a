"""What goes into the encoder tier's core and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import numpy as np
import numpy.typing as npt

from encoder_service.live_segment import LiveSpan
from encoder_service.waves import Samples
from tandem.rpc.tensors import WireTensor

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int32]


class CtcOutput(Enum):
    """Which CTC posteriors an item wants."""

    NONE = "none"
    COMPACT = "compact"
    DENSE = "dense"


@dataclass(frozen=True, slots=True, eq=False)
class EncodeItem:
    """One segment to encode.

    samples: mono at the checkpoint's sample rate, [S], float32 in [-1, 1] or int16, of which 32768 is 1. Or,
    in place of samples, a span of a live segment. `keep_ctc` is for segments with compact CTC posteriors to
    which a text will be aligned. `urgent` items go before others.
    """

    samples: Samples
    ctc: CtcOutput = CtcOutput.NONE
    embeds: bool = True
    encoder_out: bool = False
    speakers: bool = False
    keep_ctc: bool = False
    live: LiveSpan | None = None
    urgent: bool = False

    @classmethod
    def of_live(
        cls,
        span: LiveSpan,
        ctc: CtcOutput,
        *,
        embeds: bool,
        keep_ctc: bool = False,
        urgent: bool = False,
    ) -> EncodeItem:
        nothing = np.empty(0, dtype=np.int16)
        return cls(nothing, ctc, embeds=embeds, keep_ctc=keep_ctc, live=span, urgent=urgent)

    @property
    def num_samples(self) -> int:
        return len(self.samples) if self.live is None else len(self.live)


@dataclass(frozen=True, slots=True, eq=False)
class CompactCtc:
    """Natural-log posteriors of T frames: the K likeliest tokens besides the blank, the blank, all others.

    top_ids int32 [T, K] and top_log_probs float32 [T, K], likeliest first; blank_log_probs and
    remainder_log_probs float32 [T], the latter may be -inf. exp() over one frame sums to 1.
    """

    top_ids: IntArray
    top_log_probs: FloatArray
    blank_log_probs: FloatArray
    remainder_log_probs: FloatArray
    vocab_size: int
    blank_id: int


@dataclass(frozen=True, slots=True, eq=False)
class KeptCtc:
    """What the log-probability of any token is made of, on the host.

    hidden [T, d]: the CTC head's input, float32, or float16 from an engine in bfloat16. blank_log_probs
    float32 [T].
    """

    hidden: npt.NDArray[np.float32] | npt.NDArray[np.float16]
    blank_log_probs: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class SpeakerWindows:
    """Speaker embeddings float32 [n, d], not normalised, of windows at starts and ends [n], seconds."""

    embeddings: FloatArray
    starts: npt.NDArray[np.float64]
    ends: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Seconds that each stage took for the whole batch."""

    frontend: float
    encoder: float
    adaptor: float
    ctc: float
    speakers: float = 0.0

    @property
    def compute(self) -> float:
        """Everything of the recognizer after the features."""
        return self.encoder + self.adaptor + self.ctc


@dataclass(frozen=True, slots=True, eq=False)
class EncodedAudio:
    """One encoded segment; a part is None when the item did not ask for it.

    embeds: [num_embeds, hidden] in the engine's dtype. compact, or dense float32 [T, vocab] log-probabilities
    of the CTC branch. encoder_out: float32 [num_frames, d].
    """

    num_frames: int
    num_embeds: int
    embeds: WireTensor | None
    compact: CompactCtc | None
    dense: FloatArray | None
    encoder_out: FloatArray | None
    times: StageTimes
    batch_size: int
    speakers: SpeakerWindows | None = None
    kept: KeptCtc | None = None


class Pending(Protocol):
    """A batch that was launched."""

    def collect(self) -> list[EncodedAudio]:
        """Wait for the device; results in the order of the items. From any thread, once."""
        ...
