"""Recordings on their way through the audio workers: spans come as they are found, in order of time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from gateway.audio.pool import AudioPool
from gateway.audio.types import DecodeLimits, to_float
from gateway.prepare import Found, Preparation, Preparer, Span
from gateway.vad.fsmn import FsmnVad
from gateway.vad.segmenter import segment
from tandem.errors import InvalidRequest, LimitExceeded
from tandem.results import RecognizeOptions
from tandem.waves import to_wav
from tests.support.recordings import recording, vad_weights

DIALOGUE = (recording("dialogue_2spk.flac") * 32768).astype(np.int16)
LONG = np.tile(DIALOGUE, 5)
MAX_SEGMENT = 60.0


@pytest_asyncio.fixture
async def preparer(tmp_path: Path) -> AsyncIterator[Preparer]:
    limits = DecodeLimits(max_seconds=len(LONG) / 16000)
    async with AudioPool(1, limits, spool_dir=tmp_path, vad_model=vad_weights()) as pool:
        yield Preparer(pool)
        assert list(tmp_path.iterdir()) == []


async def spans(preparation: Preparation) -> list[Found]:
    return [item async for item in preparation]


async def test_the_first_spans_come_while_the_rest_is_being_decoded(preparer: Preparer) -> None:
    async with preparer.prepare(to_wav(LONG), RecognizeOptions(), MAX_SEGMENT) as preparation:
        found = [await anext(aiter(preparation))]
        assert not preparation.is_finished
        found += await spans(preparation)
        prepared = await preparation.finished()
    expected = [part.samples() for part in segment(FsmnVad(vad_weights()), LONG)]
    assert [span for span, _ in found] == [Span(part.start, min(part.stop, len(LONG))) for part in expected]
    for span, samples in found:
        np.testing.assert_array_equal(samples[span.start : span.end], LONG[span.start : span.end])
    assert prepared.duration == len(LONG) / 16000
    assert prepared.vad_seconds > 0 < prepared.decode_seconds


async def test_channels_are_put_in_order_together(preparer: Preparer) -> None:
    stereo = np.stack([DIALOGUE, np.roll(DIALOGUE, 16000 * 20)], axis=1)
    options = RecognizeOptions(separate_channels=True)
    async with preparer.prepare(to_wav(stereo), options, MAX_SEGMENT) as preparation:
        found = await spans(preparation)
    assert {span.channel for span, _ in found} == {1, 2}
    assert [span.start for span, _ in found] == sorted(span.start for span, _ in found)
    for span, samples in found:
        np.testing.assert_array_equal(samples, stereo[:, span.channel - 1])


async def test_without_vad_the_whole_recording_is_one_span(preparer: Preparer) -> None:
    async with preparer.prepare(to_wav(DIALOGUE), RecognizeOptions(vad=False), MAX_SEGMENT) as preparation:
        ((span, samples),) = await spans(preparation)
    assert span == Span(0, len(DIALOGUE))
    np.testing.assert_array_equal(to_float(samples), DIALOGUE / np.float32(32768))


async def test_what_goes_wrong_later_is_raised_after_the_spans_before_it(preparer: Preparer) -> None:
    too_long = np.concatenate([LONG, DIALOGUE])
    found = []
    async with preparer.prepare(to_wav(too_long), RecognizeOptions(), MAX_SEGMENT) as preparation:
        with pytest.raises(LimitExceeded):
            async for item in preparation:
                found.append(item)
    assert found


async def test_leaving_early_frees_the_worker(preparer: Preparer) -> None:
    async with preparer.prepare(to_wav(LONG), RecognizeOptions(), MAX_SEGMENT) as preparation:
        await anext(aiter(preparation))
    async with preparer.prepare(to_wav(DIALOGUE), RecognizeOptions(), MAX_SEGMENT) as preparation:
        assert await spans(preparation)


async def test_endpoints_that_make_no_sense_are_refused(preparer: Preparer) -> None:
    with pytest.raises(InvalidRequest):
        async with preparer.prepare(to_wav(DIALOGUE), RecognizeOptions(max_segment=0.5), MAX_SEGMENT):
            pass
