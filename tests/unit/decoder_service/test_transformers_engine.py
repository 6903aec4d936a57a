"""The PyTorch engine in this process: rows join and leave a batch without changing anyone's tokens."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from decoder_service.engines.base import (
    DraftCounts,
    EngineDead,
    EngineLoad,
    FinishReason,
    GenerationRequest,
    Prompt,
    Sampling,
    TokenDelta,
)
from decoder_service.engines.batch import Batch
from decoder_service.engines.forced import ForcedLengthEngine
from decoder_service.engines.runner import MAX_PREFILL_POSITIONS
from decoder_service.engines.settings import EngineSettings
from decoder_service.engines.transformers import TransformersEngine
from decoder_service.weights import language_model
from tandem.rpc.tensors import WireTensor
from tests.support.decoding import cases
from tests.support.services import NANO

CASES = list(cases().values())


@asynccontextmanager
async def started(**settings: Any) -> AsyncIterator[TransformersEngine]:
    model = language_model(NANO).directory
    made = TransformersEngine(EngineSettings(model, device="cpu", dtype="fp32", max_num_seqs=4, **settings))
    await made.start()
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
async def engine() -> AsyncIterator[TransformersEngine]:
    async with started() as made:
        yield made


@pytest.fixture
async def verifier() -> AsyncIterator[TransformersEngine]:
    """An engine that verifies five draft tokens at a time."""
    async with started(speculative_tokens=5, log_probs=True) as made:
        yield made


def request(index: int = 0, draft: Sequence[int] = (), **sampling: Any) -> GenerationRequest:
    case = CASES[index]
    sampling = {"max_tokens": 24, "ignore_eos": True} | sampling
    prompt = Prompt((case.prefix, WireTensor.of(case.audio), case.suffix))
    return GenerationRequest("test", prompt, Sampling(**sampling), draft=tuple(draft))


async def run(engine: TransformersEngine, wanted: GenerationRequest) -> list[TokenDelta]:
    return [delta async for delta in engine.generate(wanted)]


def tokens(deltas: list[TokenDelta]) -> list[int]:
    return [token for delta in deltas for token in delta.token_ids]


async def test_requests_that_arrive_one_after_another_keep_their_own_tokens(
    engine: TransformersEngine,
) -> None:
    async def later(order: int) -> list[int]:
        await asyncio.sleep(0.005 * order)
        return tokens(await run(engine, request(order % 9, max_tokens=24 - order % 5)))

    found = await asyncio.gather(*(later(order) for order in range(27)))
    assert found == [CASES[order % 9].greedy[: 24 - order % 5] for order in range(27)]


async def test_a_newcomer_does_not_wait_for_the_running_batch_to_end(engine: TransformersEngine) -> None:
    async with aclosing(engine.generate(request(0, max_tokens=4000))) as long:
        await anext(long)
        assert tokens(await run(engine, request(1))) == CASES[1].greedy
        assert engine.load() == EngineLoad(running=1, waiting=0)


async def test_at_most_the_configured_number_runs_and_the_rest_waits(engine: TransformersEngine) -> None:
    streams = [engine.generate(request(0, max_tokens=4000)) for _ in range(6)]
    firsts = [asyncio.ensure_future(anext(stream)) for stream in streams]
    await asyncio.gather(*firsts[:4])
    assert engine.load() == EngineLoad(running=4, waiting=2)
    for stream in streams[:4]:
        await stream.aclose()
    await asyncio.gather(*firsts[4:])
    assert engine.load() == EngineLoad(running=2, waiting=0)
    for stream in streams[4:]:
        await stream.aclose()


async def test_urgent_requests_get_the_next_place(engine: TransformersEngine) -> None:
    ended: list[str] = []

    async def run(name: str, *, urgent: bool = False) -> None:
        asked = replace(request(max_tokens=40, ignore_eos=True), urgent=urgent)
        async for _ in engine.generate(asked):
            continue
        ended.append(name)

    everyone = [asyncio.create_task(run("running")) for _ in range(4)]
    while engine.load().running < 4:
        await asyncio.sleep(0.001)
    everyone += [asyncio.create_task(run("patient")) for _ in range(5)]
    await asyncio.sleep(0)
    await asyncio.gather(run("urgent", urgent=True), *everyone)
    assert ended[:4] == ["running"] * 4
    # Four rows at a time: the last two of the patient ones come after it.
    assert ended.index("urgent") < 8


async def test_closing_a_stream_that_waits_takes_it_out_of_the_queue(engine: TransformersEngine) -> None:
    running = [engine.generate(request(0, max_tokens=4000)) for _ in range(4)]
    for stream in running:
        await anext(stream)
    waiting = asyncio.ensure_future(run(engine, request(1)))
    await asyncio.sleep(0.05)
    assert engine.load().waiting == 1
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert engine.load().waiting == 0
    for stream in running:
        await stream.aclose()


async def test_the_event_loop_stays_free_while_the_model_works(engine: TransformersEngine) -> None:
    work = asyncio.ensure_future(run(engine, request(0, max_tokens=300)))
    ticks = 0
    while not work.done():
        await asyncio.sleep(0.001)
        ticks += 1
    assert ticks > 20


async def test_the_end_of_sequence_stops_unless_it_is_ignored(engine: TransformersEngine) -> None:
    stop = CASES[0].greedy[4]
    deltas = await run(engine, request(0, ignore_eos=False, stop_token_ids=frozenset({stop})))
    assert tokens(deltas) == CASES[0].greedy[:4]
    assert deltas[-1] == TokenDelta((), (), FinishReason.STOP)
    ignored = await run(engine, request(0, stop_token_ids=frozenset({stop})))
    assert tokens(ignored) == CASES[0].greedy
    assert ignored[-1].finish is FinishReason.LENGTH


def fail(*arguments: object) -> Any:
    raise RuntimeError("out of memory")


@pytest.mark.parametrize("step", ["prefill", "decode"])
async def test_a_failing_model_fails_its_callers_and_reports_its_death(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    death = asyncio.ensure_future(engine.wait_dead())
    monkeypatch.setattr(engine._runner, step, fail)
    with pytest.raises(EngineDead, match="out of memory"):
        await asyncio.wait_for(run(engine, request()), 5)
    assert "out of memory" in await asyncio.wait_for(death, 5)
    with pytest.raises(EngineDead):
        await run(engine, request())


async def test_a_failure_reaches_those_that_run_wait_and_have_just_ended(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch fails when it lets its first row go, whose last token nobody has been told yet."""
    monkeypatch.setattr(Batch, "keep", fail)
    wanted = [asyncio.create_task(run(engine, request(max_tokens=20 + index))) for index in range(6)]
    ended, late = await asyncio.wait(wanted, timeout=20)
    assert len(ended) == 6 and not late
    assert all(isinstance(asked.exception(), EngineDead) for asked in ended)


async def test_a_request_that_comes_while_the_engine_dies_is_told_so(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing, come = threading.Event(), threading.Event()

    def fail_then(*arguments: object) -> Any:
        failing.set()
        come.wait(5)
        fail()

    monkeypatch.setattr(engine._runner, "prefill", fail_then)
    first = asyncio.create_task(run(engine, request(0)))
    assert await asyncio.to_thread(failing.wait, 5)
    # The loop is busy from here until the model's thread has ended: the newcomer has its turn before the
    # loop hears of that.
    newcomer = asyncio.create_task(run(engine, request(1)))
    come.set()
    assert engine._thread is not None
    engine._thread.join(5)
    for asked in (first, newcomer):
        with pytest.raises(EngineDead, match="out of memory"):
            await asyncio.wait_for(asked, 5)


@pytest.mark.parametrize(
    "sampling", [{"temperature": 1e-40}, {"temperature": 1.0, "repetition_penalty": 1e-38}]
)
async def test_a_row_without_probabilities_leaves_the_others_alone(
    engine: TransformersEngine, sampling: dict[str, Any]
) -> None:
    """The service refuses such sampling; a model may give scores of that kind by itself."""
    both = asyncio.gather(run(engine, request(1)), run(engine, request(0, **sampling)))
    good, odd = await asyncio.wait_for(both, 20)
    assert tokens(good) == CASES[1].greedy
    assert len(tokens(odd)) == 24


async def test_closing_fails_what_still_runs(engine: TransformersEngine) -> None:
    stream = engine.generate(request(0, max_tokens=4000))
    await anext(stream)
    await engine.close()
    with pytest.raises(EngineDead):
        async for _ in stream:
            continue


async def test_one_prefill_is_bounded_but_takes_at_least_one(engine: TransformersEngine) -> None:
    size = engine._runner.prefill_size
    assert size([]) == 0
    assert size([MAX_PREFILL_POSITIONS * 2]) == 1
    assert size([10, 20, 30]) == 3
    half = MAX_PREFILL_POSITIONS // 2
    assert size([10, half, half, half]) == 2


async def test_forced_answers_are_as_long_as_their_audio_and_no_longer_than_asked(
    engine: TransformersEngine,
) -> None:
    forced = ForcedLengthEngine(engine, rate=1.5)
    audio = len(CASES[0].audio)
    free = [delta async for delta in forced.generate(request(max_tokens=4000, ignore_eos=False))]
    assert len(tokens(free)) == math.ceil(1.5 * audio) and free[-1].finish is FinishReason.LENGTH
    bounded = [delta async for delta in forced.generate(request(max_tokens=3))]
    assert tokens(bounded) == CASES[0].greedy[:3]


async def test_a_right_draft_is_accepted_as_a_whole(verifier: TransformersEngine) -> None:
    case = CASES[0]
    deltas = await run(verifier, request(0, draft=case.greedy))
    assert tokens(deltas) == case.greedy
    assert [len(delta.token_ids) for delta in deltas] == [6, 6, 6, 6]
    assert [len(delta.log_probs) for delta in deltas] == [6, 6, 6, 6]
    assert verifier.load().drafts == DraftCounts(drafted=20, accepted=20)


async def test_drafts_of_every_kind_leave_the_tokens_alone(verifier: TransformersEngine) -> None:
    """Rows that accept different numbers share a batch, join it and leave it."""

    def spoilt(tokens: list[int], kind: int) -> list[int]:
        wrong = [(token + 1) % 485 for token in tokens]
        drafts = [tokens, wrong, [], tokens[:7], tokens[2:], [*wrong[:3], *tokens], tokens[:4] + tokens[6:]]
        return drafts[kind % len(drafts)]

    async def later(order: int) -> list[int]:
        await asyncio.sleep(0.003 * order)
        draft = spoilt(CASES[order % 9].greedy, order)
        return tokens(await run(verifier, request(order % 9, draft, max_tokens=24 - order % 5)))

    found = await asyncio.gather(*(later(order) for order in range(36)))
    assert found == [CASES[order % 9].greedy[: 24 - order % 5] for order in range(36)]
    drafts = verifier.load().drafts
    assert 0 < drafts.accepted < drafts.drafted


async def test_a_stop_token_inside_an_accepted_draft_ends_the_answer(verifier: TransformersEngine) -> None:
    greedy = CASES[0].greedy
    stops = frozenset({greedy[4]})
    deltas = await run(verifier, request(0, greedy, ignore_eos=False, stop_token_ids=stops))
    assert tokens(deltas) == greedy[:4]
    assert deltas[-1].finish is FinishReason.STOP
    assert sum(len(delta.log_probs) for delta in deltas) == 4


async def test_log_probs_of_drafted_tokens_are_those_of_single_steps(verifier: TransformersEngine) -> None:
    plain = await run(verifier, request(1))
    drafted = await run(verifier, request(1, CASES[1].greedy))
    assert [value for delta in drafted for value in delta.log_probs] == pytest.approx(
        [value for delta in plain for value in delta.log_probs], abs=1e-4
    )


@pytest.mark.parametrize("sampling", [{"temperature": 1.0, "seed": 3}, {"repetition_penalty": 1.5}])
async def test_a_draft_is_no_part_of_answers_that_are_not_the_models_own(
    verifier: TransformersEngine, sampling: dict[str, Any]
) -> None:
    plain = tokens(await run(verifier, request(0, **sampling)))
    assert tokens(await run(verifier, request(0, CASES[0].greedy, **sampling))) == plain
    assert verifier.load().drafts == DraftCounts()
