"""The speakers of one recording: what the recognizer calls once everything is transcribed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from gateway.speakers.diarize import diarize
from gateway.speakers.labels import label_segments
from gateway.speakers.types import SegmentEmbeddings
from tandem.results import Segment


async def name_speakers(
    segments: Sequence[Segment], voices: Sequence[SegmentEmbeddings], num_speakers: int | None
) -> tuple[tuple[Segment, ...], float]:
    """Labelled segments, cut where the speaker changes, and the seconds it took, off the event loop.

    `voices` are those of all speech, in order of time, also where the segments have no text. Those of all
    channels are clustered together; a segment gets its speakers from the voices of its own channel.
    """
    started = time.perf_counter()
    labelled = await asyncio.to_thread(_named, segments, voices, num_speakers)
    return labelled, time.perf_counter() - started


def _named(
    segments: Sequence[Segment], voices: Sequence[SegmentEmbeddings], num_speakers: int | None
) -> tuple[Segment, ...]:
    return label_segments(segments, diarize(voices, num_speakers).turns)
