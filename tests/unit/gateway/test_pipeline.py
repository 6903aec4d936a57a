"""One recording through a recognizer whose tiers answer at once: what it makes of their answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np

from gateway.backends.encoder import Encoder
from gateway.backends.segment_call import SegmentRequest, SegmentResult
from gateway.model import ServedModel
from gateway.pipeline import Recognizer
from gateway.prepare import Found, Preparation, Prepared, Preparer, Span
from gateway.text.prompt import Prompt, PromptOptions
from tandem.results import RecognizeOptions
from tests.unit.gateway.speakers.voices import sentence, speakers, windows

RATE = 16_000
VOICES = speakers(2)


class Model:
    """A checkpoint that knows no words and no times."""

    info = SimpleNamespace(has_speakers=True, max_segment=60.0, has_ctc=False)
    ctc_tokenizer = aligner = None

    @property
    def prompts(self) -> Model:
        return self

    detokenizer = prompts

    def build(self, options: PromptOptions) -> Prompt:
        return Prompt("", "", (), ())

    def decode(self, token_ids: tuple[int, ...]) -> str:
        return f"voice {token_ids[0]}"


class Tiers:
    """They hear who speaks in the value of the first sample."""

    capacity = 100.0

    async def transcribe(
        self, request: SegmentRequest, *, ctc: bool, on_encoded: Callable[[], None]
    ) -> SegmentResult:
        who, count = int(request.samples[0]), len(request.samples) // (RATE // 2)
        heard = sentence(windows(VOICES, np.full(count, who), seed=count), 0.0, shift=0.5)
        return SegmentResult((who,), 4, None, 0.0, 0.0, 0.0, heard)


class Call:
    """Recordings of two channels: one voice in each, over each other."""

    spans = tuple(
        Span(start * RATE, end * RATE, channel)
        for start, end, channel in ((0, 12, 1), (2, 10, 2), (14, 17, 1), (15, 25, 2))
    )

    @contextlib.asynccontextmanager
    async def prepare(
        self, audio: bytes | Path, options: RecognizeOptions, max_segment: float
    ) -> AsyncIterator[Preparation]:
        found: asyncio.Queue[Found | None] = asyncio.Queue()
        for span in self.spans:
            found.put_nowait((span, np.full(span.end, span.channel - 1, dtype=np.int16)))
        found.put_nowait(None)

        async def decode() -> Prepared:
            return Prepared(25.0, 0.0, 0.0)

        yield Preparation(found, asyncio.create_task(decode()))


async def test_each_channel_of_a_call_is_named_by_its_own_voice() -> None:
    recognizer = Recognizer(cast(ServedModel, Model()), cast(Encoder, Tiers()), cast(Preparer, Call()))
    options = RecognizeOptions(speakers=True, separate_channels=True)
    segments = (await recognizer.recognize(b"", options)).segments
    assert [(part.channel, part.text, part.speaker) for part in segments] == [
        (1, "voice 0", "SPK0"),
        (2, "voice 1", "SPK1"),
        (1, "voice 0", "SPK0"),
        (2, "voice 1", "SPK1"),
    ]
