"""Live segments: features are those of whole clips, computed once; lines end when they should."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
import torch

from encoder_service.batch_inputs import BatchInputs
from encoder_service.batcher import Batcher, BatcherConfig
from encoder_service.checkpoint import load_checkpoint
from encoder_service.encoding_cache import EncodingCache
from encoder_service.engine import EncoderEngine, EngineConfig
from encoder_service.frontend import Frontend
from encoder_service.live_segment import LiveSegment, Pcm
from encoder_service.live_stream import LiveLimits, LiveMemory, LiveStream
from encoder_service.loaded import LoadedEncoder
from encoder_service.messages import CtcOutput, EncodeItem
from encoder_service.targets import KeptBudget, TargetHead
from encoder_service.transfer import Transfer
from tandem.encoder.v1 import encoder_pb2 as pb
from tandem.errors import InvalidRequest
from tandem.rpc.tensors import from_message
from tests.golden.nano import DIRECTORY, relative_error
from tests.support.recordings import recording

WINDOW, HOP = 400, 160


@pytest.fixture(scope="module")
def engine() -> EncoderEngine:
    return EncoderEngine(load_checkpoint(DIRECTORY), EngineConfig(max_segment_seconds=30.0))


@pytest.fixture(scope="module")
def speech() -> Pcm:
    return np.rint(recording("english_9s.wav") * 32767).astype(np.int16)


class Counting:
    """How many frames a front end computes."""

    def __init__(self, frontend: Frontend, monkeypatch: pytest.MonkeyPatch) -> None:
        self.frames, self._compute = 0, frontend.packed_fbank
        monkeypatch.setattr(frontend, "packed_fbank", self._count)

    def _count(self, *arguments: object) -> object:
        fbank, counts = self._compute(*arguments)  # type: ignore[arg-type]
        self.frames += len(fbank)
        return fbank, counts


@pytest.mark.parametrize("seed", range(4))
def test_features_that_come_in_pieces_are_those_of_the_whole(
    engine: EncoderEngine, speech: Pcm, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, transfer, frontend = np.random.default_rng(seed), Transfer(torch.device("cpu")), engine.frontend
    counting = Counting(frontend, monkeypatch)
    segment = LiveSegment(WINDOW, HOP)
    asked = 0
    while segment.length < len(speech):
        segment.add(speech[segment.length : segment.length + int(rng.integers(1, 9000))])
        if segment.length < 2 * WINDOW or rng.random() < 0.3:
            continue
        start = HOP * int(rng.integers(0, (segment.length - WINDOW) // HOP))
        end = int(rng.integers(start + WINDOW, segment.length + 1))
        items = [EncodeItem.of_live(segment.span(start, end), CtcOutput.COMPACT, embeds=False)]
        streamed = BatchInputs.of(items, frontend, transfer).features(frontend, transfer)
        offline, _ = frontend.extract([torch.from_numpy(speech[start:end].astype(np.float32) / 32768)])
        # To the last bits: products of matrices are rounded by their number of rows.
        assert torch.allclose(streamed, offline[0], rtol=0, atol=1e-4)
        # What extract computed is not the segment's.
        counting.frames -= 1 + (end - start - WINDOW) // HOP
        asked += 1
    assert asked > 3
    assert counting.frames <= 1 + (len(speech) - WINDOW) // HOP


def test_a_batch_may_hold_live_spans_and_whole_clips(engine: EncoderEngine, speech: Pcm) -> None:
    first, second = LiveSegment(WINDOW, HOP), LiveSegment(WINDOW, HOP)
    first.add(speech)
    second.add(speech[30_000:])
    spans = [(0, 40_000), (16_000, 100_000), (0, 400), (16_000, 99_999)]
    live = [
        EncodeItem.of_live(segment.span(*spans[at]), CtcOutput.COMPACT, embeds=True)
        for at, segment in enumerate((first, first, second, first))
    ]
    clips = [speech[start:end] for start, end in spans]
    clips[2] = speech[30_000:30_400]
    whole = [EncodeItem(clip, CtcOutput.COMPACT) for clip in clips]
    mixed = [live[0], whole[3], live[1], live[2], whole[0], live[3]]
    expected = [whole[0], whole[3], whole[1], whole[2], whole[0], whole[3]]
    assert [engine.seconds(item) for item in mixed] == [engine.seconds(item) for item in expected]
    for item, got in zip(expected, engine.encode(mixed), strict=True):
        alone = engine.encode([item])[0]
        assert (got.num_frames, got.num_embeds) == (alone.num_frames, alone.num_embeds)
        assert got.embeds is not None and alone.embeds is not None
        assert relative_error(got.embeds.float32(), alone.embeds.float32()) < 1e-4
        assert got.compact is not None and alone.compact is not None
        assert np.allclose(got.compact.blank_log_probs, alone.compact.blank_log_probs, atol=1e-3)


@pytest.mark.parametrize(("start", "end"), [(80, 2000), (0, 399), (0, 4001), (-160, 800), (1600, 800)])
def test_spans_that_make_no_sense_are_refused(start: int, end: int) -> None:
    segment = LiveSegment(WINDOW, HOP)
    segment.add(np.zeros(4000, dtype=np.int16))
    with pytest.raises(ValueError, match="no span"):
        segment.span(start, end)


@contextlib.asynccontextmanager
async def live_stream(
    engine: EncoderEngine, idle: float = 60.0, memory: LiveMemory | None = None
) -> AsyncIterator[tuple[LiveStream, list[bool]]]:
    """A stream over a real batcher, and what says that the tier drains."""
    draining: list[bool] = []
    head = TargetHead(engine.model.ctc) if engine.model.ctc is not None else None
    async with Batcher(engine, BatcherConfig()) as batcher:
        info = pb.GetModelInfoResponse(ctc_vocab_size=head.vocab_size if head is not None else 0)
        encodings = EncodingCache(batcher.submit, "", 0)
        loaded = LoadedEncoder(engine, batcher, encodings, None, info, (), KeptBudget(1000.0), head)
        limits = LiveLimits(idle=idle)
        yield LiveStream(loaded, memory or LiveMemory(), lambda: bool(draining), limits), draining


async def requests(
    *first: pb.TranscribeLiveRequest, then: asyncio.Queue[pb.TranscribeLiveRequest] | None = None
) -> AsyncIterator[pb.TranscribeLiveRequest]:
    """A caller that stays on the line."""
    for request in first:
        yield request
    queue = then or asyncio.Queue()
    while True:
        yield await queue.get()


def ask(audio: Pcm, **more: Any) -> pb.TranscribeLiveRequest:
    span = pb.LiveSpan(id=1, start=0, end=len(audio), **more)
    return pb.TranscribeLiveRequest(audio=audio.tobytes(), span=span)


@pytest.mark.parametrize("why", ["idle", "drain"])
async def test_a_quiet_line_ends_by_itself(engine: EncoderEngine, speech: Pcm, why: str) -> None:
    async with live_stream(engine, idle=0.2 if why == "idle" else 60.0) as (stream, draining):
        draining += [True] * (why == "drain")
        answers = [answer async for answer in stream.answers(requests(ask(speech[:32_000])))]
    assert [answer.id for answer in answers] == [1]


async def test_targets_of_a_span_are_its_exact_posteriors(engine: EncoderEngine, speech: Pcm) -> None:
    config = pb.TranscribeConfig(ctc=pb.CTC_MODE_COMPACT, ctc_only=True)
    named = pb.TranscribeLiveRequest(targets=pb.LiveTargets(id=1, token_ids=[5, 90]))
    then: asyncio.Queue[pb.TranscribeLiveRequest] = asyncio.Queue()
    async with live_stream(engine, idle=0.2) as (stream, _):
        asked = requests(ask(speech[:48_000], config=config, targets_follow=True), then=then)
        async with contextlib.aclosing(stream.answers(asked)) as answers:
            first = await anext(answers)
            then.put_nowait(named)
            second = await anext(answers)
    assert first.HasField("compact_ctc") and not first.HasField("target_log_probs")
    columns = from_message(second.target_log_probs).float32()
    (whole,) = engine.encode([EncodeItem(speech[:48_000], CtcOutput.DENSE)])
    assert whole.dense is not None
    ctc = engine.checkpoint.config.ctc
    assert ctc is not None
    assert np.allclose(columns, whole.dense[:, [5, 90, ctc.blank_id]], atol=1e-3)


REFUSED = pb.TranscribeConfig(ctc=pb.CTC_MODE_DENSE, ctc_only=True)
"""Of spans that are answered, with an error, in the next turn of the event loop."""


async def test_requests_wait_while_the_caller_takes_no_answers(engine: EncoderEngine, speech: Pcm) -> None:
    read = 0

    async def spans() -> AsyncIterator[pb.TranscribeLiveRequest]:
        nonlocal read
        yield pb.TranscribeLiveRequest(audio=speech[:16_000].tobytes())
        for read in range(1, 201):
            yield pb.TranscribeLiveRequest(span=pb.LiveSpan(id=read, start=0, end=800, config=REFUSED))
            for _ in range(3):
                await asyncio.sleep(0)

    async with live_stream(engine) as (stream, _), contextlib.aclosing(stream.answers(spans())) as answers:
        first = await anext(answers)
        for _ in range(2000):
            await asyncio.sleep(0)
        assert read < 40
        rest = [answer.id async for answer in answers]
    assert [first.id, *rest] == list(range(1, 201))


@pytest.mark.parametrize("then", ["silence", "half-close", "nonsense"])
async def test_audio_of_a_caller_that_takes_no_answers_is_given_back(
    engine: EncoderEngine, speech: Pcm, then: str
) -> None:
    asked = pb.TranscribeLiveRequest(span=pb.LiveSpan(id=2, start=0, end=800, config=REFUSED))
    nonsense = pb.TranscribeLiveRequest(audio=b"x")

    async def sent() -> AsyncIterator[pb.TranscribeLiveRequest]:
        for request in (ask(speech[:16_000], config=REFUSED), asked):
            yield request
            for _ in range(3):
                await asyncio.sleep(0)
        if then == "nonsense":
            yield nonsense
        if then == "silence":
            await asyncio.Event().wait()

    memory = LiveMemory()
    async with (
        live_stream(engine, idle=0.2 if then == "silence" else 60.0, memory=memory) as (stream, _),
        contextlib.aclosing(stream.answers(sent())) as answers,
    ):
        assert (await anext(answers)).id == 1
        async with asyncio.timeout(10):
            while memory.seconds:
                await asyncio.sleep(0.01)
        assert (await anext(answers)).id == 2
        with pytest.raises(InvalidRequest if then == "nonsense" else StopAsyncIteration):
            await anext(answers)
