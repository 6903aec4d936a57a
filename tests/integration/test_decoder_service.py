"""The decoder tier as a process, with each engine: parameters, bad calls, cancellation, overload."""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import status_pb2

from tandem.decoder.v1 import decoder_pb2 as pb
from tandem.errors import InvalidRequest, LimitExceeded, ModelMismatch, Overloaded, TandemError
from tandem.rpc.status import from_rpc_error, from_status
from tandem.rpc.tensors import WireTensor
from tandem.tensor.v1 import tensor_pb2
from tests.support.decoding import (
    CASE_NAMES,
    MAX_WAITING,
    RunningDecoder,
    at_once,
    cases,
    collect,
    generate,
    messages,
)
from tests.support.metrics import scrape, total

RUNNING = 4
CASE = "0.0"


def failure(decoder: RunningDecoder, requests: list[pb.GenerateRequest]) -> TandemError:
    with pytest.raises(grpc.RpcError) as caught:
        list(decoder.stub.Generate(iter(requests), timeout=20))
    return from_rpc_error(caught.value)


def load(decoder: RunningDecoder) -> pb.GetLoadResponse:
    return decoder.stub.GetLoad(pb.GetLoadRequest(), timeout=30)


def wait_for(decoder: RunningDecoder, running: int, waiting: int, seconds: float = 20) -> None:
    """Until the load is exactly this; an idle engine must hold no cache either."""
    deadline = time.monotonic() + seconds
    while True:
        now = load(decoder)
        idle_cache = running or not now.kv_cache_usage
        if (now.running_requests, now.waiting_requests) == (running, waiting) and idle_cache:
            return
        assert time.monotonic() < deadline, f"the load never became {running}, {waiting}: {now}"
        time.sleep(0.01)


@contextlib.contextmanager
def long_calls(decoder: RunningDecoder, count: int) -> Iterator[None]:
    """Calls of a few seconds each, begun; cancelled at the end."""
    sampling = pb.SamplingParams(max_tokens=3000, ignore_eos=True)
    requests = messages(cases()[CASE].parts, sampling=sampling)
    calls = [decoder.stub.Generate(iter(requests), timeout=120) for _ in range(count)]
    try:
        yield
    finally:
        for call in calls:
            call.cancel()


def test_it_says_what_it_serves(decoder: RunningDecoder) -> None:
    info = decoder.stub.GetModelInfo(pb.GetModelInfoRequest(), timeout=5)
    assert (info.engine, info.model) == (decoder.engine, "nano")
    assert (info.hidden_size, info.vocab_size, info.max_model_len) == (128, 485, 4096)
    assert info.dtype == tensor_pb2.DATA_TYPE_FLOAT32
    assert list(info.eos_token_ids) == [2]
    assert len(info.model_hash) == 64
    assert load(decoder).max_waiting_requests == MAX_WAITING


def test_a_repetition_penalty_counts_text_and_output_but_no_placeholders(decoder: RunningDecoder) -> None:
    case = cases()[CASE]
    expected = [216, 475, 339, 115, 118, 420, 340, 337, 20, 287, 379, 238, 333, 197, 116, 381, 295, 431, 84]
    answer = generate(decoder.stub, case.parts, repetition_penalty=2.0)
    assert answer.token_ids[: len(expected)] == expected
    assert answer.token_ids != case.greedy
    assert len(set(answer.token_ids)) == len(answer.token_ids)


def test_a_stop_token_ends_the_answer_and_is_left_out(decoder: RunningDecoder) -> None:
    case = cases()[CASE]
    answer = generate(decoder.stub, case.parts, stop_token_ids=[case.greedy[5]])
    assert answer.token_ids == case.greedy[:5]
    assert answer.result.finish_reason == pb.FINISH_REASON_STOP
    assert answer.result.completion_tokens == 5


def test_ignore_eos_runs_to_max_tokens(decoder: RunningDecoder) -> None:
    answer = generate(decoder.stub, cases()[CASE].parts, max_tokens=300, ignore_eos=True)
    assert len(answer.token_ids) == 300
    assert answer.result.finish_reason == pb.FINISH_REASON_LENGTH


def test_a_seed_makes_sampling_repeatable(decoder: RunningDecoder) -> None:
    parts = cases()[CASE].parts
    first, again, other = (
        generate(decoder.stub, parts, temperature=1.5, seed=seed).token_ids for seed in (7, 7, 8)
    )
    assert first == again
    assert other != first != cases()[CASE].greedy


@pytest.mark.parametrize(
    "limits",
    [
        {"temperature": 0.01, "top_p": 1e-45, "repetition_penalty": 0.1, "top_k": 1},
        {"temperature": 0.01, "repetition_penalty": 10.0, "top_k": 2**31 - 1},
        {"temperature": 2.0, "repetition_penalty": 0.1, "top_p": 1e-45},
        {"temperature": 2.0, "repetition_penalty": 10.0, "seed": 2**64 - 1},
    ],
)
def test_sampling_at_its_limits_is_served(decoder: RunningDecoder, limits: dict[str, float]) -> None:
    case = cases()[CASE]
    assert len(generate(decoder.stub, case.parts, ignore_eos=True, **limits).token_ids) == 24
    assert generate(decoder.stub, case.parts).token_ids == case.greedy


def test_log_probs_come_with_every_token(decoder: RunningDecoder) -> None:
    answer = generate(decoder.stub, cases()[CASE].parts, repetition_penalty=1.0)
    assert len(answer.log_probs) == len(answer.token_ids)
    assert answer.log_probs[:3] == pytest.approx([-0.877885, -0.624761, -1.700673], abs=1e-3)


def test_vllm_counts_tokens_where_that_is_asked_for(decoder: RunningDecoder) -> None:
    name = "vllm:generation_tokens_total"
    before = total(scrape(decoder.metrics_port), name)
    answer = generate(decoder.stub, cases()[CASE].parts)
    counted = total(scrape(decoder.metrics_port), name) - before
    assert counted == (len(answer.token_ids) if decoder.engine == "vllm" else 0)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_embeddings_are_cast(decoder: RunningDecoder, dtype: str) -> None:
    case = cases()[CASE]
    if dtype == "float16":
        sent = WireTensor.of(case.audio.astype(np.float16))
    else:
        sent = WireTensor.bfloat16((case.audio.view(np.uint32) >> 16).astype(np.uint16))
    same = generate(decoder.stub, [case.prefix, sent.float32(), case.suffix])
    assert generate(decoder.stub, [case.prefix, sent, case.suffix]).token_ids == same.token_ids


def test_timing_adds_up(decoder: RunningDecoder) -> None:
    started = time.monotonic()
    timing = generate(decoder.stub, cases()[CASE].parts).result.timing
    elapsed = time.monotonic() - started
    first, total = timing.first_token.ToMicroseconds() / 1e6, timing.total.ToMicroseconds() / 1e6
    assert 0 < first <= total <= elapsed


def test_final_only_gives_the_same_tokens_in_one_message(decoder: RunningDecoder) -> None:
    case, sampling = cases()[CASE], pb.SamplingParams(max_tokens=24)
    requests = messages(case.parts, sampling=sampling, final_only=True)
    (answer,) = decoder.stub.Generate(iter(requests), timeout=60)
    streamed = generate(decoder.stub, case.parts)
    assert list(answer.token_ids) == streamed.token_ids
    assert answer.result.completion_tokens == len(answer.token_ids) == streamed.result.completion_tokens
    assert answer.result.finish_reason == streamed.result.finish_reason
    assert not answer.result.timing.HasField("first_token")


def test_one_message_each_way_gives_the_same_tokens(decoder: RunningDecoder) -> None:
    case, sampling = cases()[CASE], pb.SamplingParams(max_tokens=24)
    answer = decoder.stub.GenerateAtOnce(at_once(case.parts, sampling=sampling), timeout=60).answer
    streamed = generate(decoder.stub, case.parts)
    assert list(answer.token_ids) == streamed.token_ids
    assert answer.result.completion_tokens == len(answer.token_ids)
    assert answer.result.prompt_tokens == streamed.result.prompt_tokens
    assert answer.result.finish_reason == streamed.result.finish_reason


def test_bad_calls_of_one_message_are_refused(decoder: RunningDecoder) -> None:
    good = at_once(cases()[CASE].parts)
    short, missing, foreign, large = (
        pb.GenerateAtOnceRequest.FromString(good.SerializeToString()) for _ in range(4)
    )
    short.embeddings[0] = good.embeddings[0][:-4]
    del missing.embeddings[:]
    foreign.config.expected_model_hash = "0" * 64
    large.config.sampling.max_tokens = 5000
    expected = {"embeddings[0]": short, "embeddings": missing}
    for field, message in expected.items():
        error = refused_at_once(decoder, message)
        assert isinstance(error, InvalidRequest)
        assert [violation.field for violation in error.violations] == [field]
    assert isinstance(refused_at_once(decoder, foreign), ModelMismatch)
    assert isinstance(refused_at_once(decoder, large), LimitExceeded)


def refused_at_once(decoder: RunningDecoder, message: pb.GenerateAtOnceRequest) -> TandemError:
    with pytest.raises(grpc.RpcError) as caught:
        decoder.stub.GenerateAtOnce(message, timeout=20)
    return from_rpc_error(caught.value)


def test_a_cancelled_call_of_one_message_gives_its_place_back(decoder: RunningDecoder) -> None:
    sampling = pb.SamplingParams(max_tokens=3000, ignore_eos=True)
    wait_for(decoder, 0, 0)
    call = decoder.stub.GenerateAtOnce.future(at_once(cases()[CASE].parts, sampling=sampling), timeout=60)
    wait_for(decoder, 1, 0)
    call.cancel()
    wait_for(decoder, 0, 0)


def batch(*prompts: pb.GenerateAtOnceRequest) -> pb.GenerateBatchRequest:
    return pb.GenerateBatchRequest(prompts=prompts)


def long_prompt(max_tokens: int = 3000) -> pb.GenerateAtOnceRequest:
    sampling = pb.SamplingParams(max_tokens=max_tokens, ignore_eos=True)
    return at_once(cases()[CASE].parts, sampling=sampling)


def test_prompts_of_one_call_are_answered_or_refused_each_alone(decoder: RunningDecoder) -> None:
    sampling = pb.SamplingParams(max_tokens=24)
    prompts = {name: at_once(cases()[name].parts, sampling=sampling) for name in CASE_NAMES}
    bad = at_once([(1, 485)])
    foreign = at_once(cases()[CASE].parts, expected_model_hash="0" * 64)
    responses = decoder.stub.GenerateBatch(iter([batch(bad, *prompts.values(), foreign)]), timeout=60)
    answers = {answer.prompt: answer for response in responses for answer in response.answers}
    assert sorted(answers) == list(range(len(prompts) + 2))
    got = {name: list(answers[1 + place].answer.token_ids) for place, name in enumerate(prompts)}
    assert got == {name: cases()[name].greedy[:24] for name in prompts}
    assert all(answers[1 + place].answer.HasField("result") for place in range(len(prompts)))
    refused, other = (told(answers[place]) for place in (0, len(prompts) + 1))
    assert isinstance(refused, InvalidRequest)
    assert [violation.field for violation in refused.violations] == ["config.prompt[0].token_ids.ids[1]"]
    assert isinstance(other, ModelMismatch)


def told(answer: pb.BatchedAnswer) -> TandemError:
    assert answer.WhichOneof("outcome") == "error"
    return from_status(status_pb2.Status.FromString(answer.error))


def test_what_is_done_first_is_answered_first(decoder: RunningDecoder) -> None:
    requests = iter([batch(long_prompt(400), long_prompt(3))])
    responses = decoder.stub.GenerateBatch(requests, timeout=60)
    assert [answer.prompt for response in responses for answer in response.answers] == [1, 0]


def test_prompts_of_a_call_give_their_places_back_one_by_one_and_with_it(decoder: RunningDecoder) -> None:
    wait_for(decoder, 0, 0)
    to_send: queue.SimpleQueue[pb.GenerateBatchRequest | None] = queue.SimpleQueue()
    to_send.put(batch(long_prompt(), long_prompt()))
    call = decoder.stub.GenerateBatch(iter(to_send.get, None), timeout=60)
    wait_for(decoder, 2, 0)
    to_send.put(pb.GenerateBatchRequest(cancel=[0]))
    wait_for(decoder, 1, 0)
    call.cancel()
    to_send.put(None)
    wait_for(decoder, 0, 0)


def test_a_call_whose_prompts_are_all_cancelled_ends(decoder: RunningDecoder) -> None:
    requests = iter([batch(long_prompt(), long_prompt()), pb.GenerateBatchRequest(cancel=[1, 0])])
    assert list(decoder.stub.GenerateBatch(requests, timeout=20)) == []
    wait_for(decoder, 0, 0)


def test_a_call_takes_more_prompts_until_it_is_closed(decoder: RunningDecoder) -> None:
    to_send: queue.SimpleQueue[pb.GenerateBatchRequest | None] = queue.SimpleQueue()
    first = batch(long_prompt(3))
    first.more_follow = True
    to_send.put(first)
    call = decoder.stub.GenerateBatch(iter(to_send.get, None), timeout=60)
    assert [answer.prompt for answer in next(call).answers] == [0]
    to_send.put(batch(long_prompt(400), long_prompt(), long_prompt(5)))
    to_send.put(pb.GenerateBatchRequest(cancel=[0, 2]))
    to_send.put(None)  # What is under way is still answered.
    answers = [answer for response in call for answer in response.answers]
    assert [(answer.prompt, len(answer.answer.token_ids)) for answer in answers] == [(3, 5), (1, 400)]
    wait_for(decoder, 0, 0)


def test_of_a_caller_that_does_not_read_nothing_more_is_read(decoder: RunningDecoder) -> None:
    """Until it does: then every prompt is answered. Refusals with many faults, 27 MB, overflow any window."""
    count, bad = 2000, at_once([(485,) * 20])

    def read() -> float:
        return total(scrape(decoder.metrics_port), "tandem_decoder_prompts_together_count")

    wait_for(decoder, 0, 0)
    before = read()
    requests = [pb.GenerateBatchRequest(prompts=[bad] * 8, more_follow=at == 0) for at in range(count)]
    call = decoder.stub.GenerateBatch(iter(requests), timeout=120)
    now, last = read(), before
    while now != last or now == before:
        time.sleep(1)
        now, last = read(), now
    assert now - before < count / 2
    answers = [answer for response in call for answer in response.answers]
    assert sorted(answer.prompt for answer in answers) == list(range(8 * count))
    assert read() - before == count


BAD_BATCHES = {
    "nothing": ([], "prompts"),
    "no prompts": ([pb.GenerateBatchRequest(cancel=[0])], "prompts"),
    "prompts twice": ([batch(long_prompt())] * 2, "prompts"),
    "nobody's place": ([batch(long_prompt()), pb.GenerateBatchRequest(cancel=[1])], "cancel"),
}


@pytest.mark.parametrize("name", BAD_BATCHES)
def test_bad_calls_of_several_prompts_name_the_field_and_leave_nothing(
    decoder: RunningDecoder, name: str
) -> None:
    requests, field = BAD_BATCHES[name]
    with pytest.raises(grpc.RpcError) as caught:
        list(decoder.stub.GenerateBatch(iter(requests), timeout=20))
    error = from_rpc_error(caught.value)
    assert isinstance(error, InvalidRequest)
    assert [violation.field for violation in error.violations] == [field]
    wait_for(decoder, 0, 0)


def embeds(*shape: int) -> np.ndarray[Any, Any]:
    return np.zeros(shape, np.float32)


BAD = {
    "no config": ([], "config"),
    "tensor before config": (messages([embeds(1, 128)])[1:], "config"),
    "config twice": (messages([(1, 2)]) * 2, "config"),
    "empty prompt": (messages([]), "config.prompt"),
    "id beyond the vocabulary": (messages([(1, 485)]), "config.prompt[0].token_ids.ids[1]"),
    "negative id": (messages([(-1,)]), "config.prompt[0].token_ids.ids[0]"),
    "wrong hidden size": (messages([embeds(3, 64)]), "config.prompt[0].embeddings.spec.shape"),
    "no rows": (messages([embeds(0, 128)]), "config.prompt[0].embeddings.spec.shape"),
    "integers": (messages([np.zeros((3, 128), np.int32)]), "config.prompt[0].embeddings.spec.dtype"),
    "missing bytes": (messages([embeds(3, 128)])[:1], "chunk.name"),
    "unannounced tensor": ([*messages([(1,)]), messages([embeds(1, 128)])[1]], "chunk.name"),
    "not finite": (messages([np.full((2, 128), np.nan, np.float32)]), "chunk.data"),
    "top_p": (messages([(1,)], sampling=pb.SamplingParams(top_p=0)), "config.sampling.top_p"),
    "max_tokens": (messages([(1,)], sampling=pb.SamplingParams(max_tokens=0)), "config.sampling.max_tokens"),
    "cold": (messages([(1,)], sampling=pb.SamplingParams(temperature=1e-40)), "config.sampling.temperature"),
    "hot": (messages([(1,)], sampling=pb.SamplingParams(temperature=2.5)), "config.sampling.temperature"),
    "repetition_penalty": (
        messages([(1,)], sampling=pb.SamplingParams(temperature=1, repetition_penalty=1e-38)),
        "config.sampling.repetition_penalty",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_calls_name_the_field_and_the_next_call_is_served(decoder: RunningDecoder, name: str) -> None:
    requests, field = BAD[name]
    error = failure(decoder, requests)
    assert type(error) is InvalidRequest
    assert [violation.field for violation in error.violations] == [field]
    assert generate(decoder.stub, cases()[CASE].parts, max_tokens=3).token_ids == cases()[CASE].greedy[:3]


def test_a_prompt_that_leaves_no_room_is_out_of_range(decoder: RunningDecoder) -> None:
    error = failure(decoder, messages([(1,) * 100], sampling=pb.SamplingParams(max_tokens=3997)))
    assert isinstance(error, LimitExceeded)
    assert error.metadata == {"prompt_tokens": "100", "max_model_len": "4096"}
    assert isinstance(failure(decoder, messages([(1,) * 4096])), LimitExceeded)


def test_another_model_s_embeddings_are_refused(decoder: RunningDecoder) -> None:
    error = failure(decoder, messages(cases()[CASE].parts, expected_model_hash="0" * 64))
    assert isinstance(error, ModelMismatch)
    served = decoder.stub.GetModelInfo(pb.GetModelInfoRequest(), timeout=5).model_hash
    assert error.metadata == {"model_hash": served}
    right = messages(
        cases()[CASE].parts, expected_model_hash=served, sampling=pb.SamplingParams(max_tokens=2)
    )
    assert collect(decoder.stub.Generate(iter(right), timeout=20)).token_ids == cases()[CASE].greedy[:2]


def test_cancelled_calls_give_their_places_back(decoder: RunningDecoder) -> None:
    """Long calls take every running place, one more waits; once they are cancelled the engine is idle."""
    with long_calls(decoder, RUNNING + 1):
        wait_for(decoder, RUNNING, 1)
    wait_for(decoder, 0, 0)
    assert generate(decoder.stub, cases()[CASE].parts).token_ids == cases()[CASE].greedy


def test_a_deadline_reaches_the_engine(decoder: RunningDecoder) -> None:
    sampling = pb.SamplingParams(max_tokens=3000, ignore_eos=True)
    call = decoder.stub.Generate(iter(messages(cases()[CASE].parts, sampling=sampling)), timeout=0.5)
    with pytest.raises(grpc.RpcError) as caught:
        list(call)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    wait_for(decoder, 0, 0)


def test_overload_is_refused_early_with_a_retry_hint_and_passes(decoder: RunningDecoder) -> None:
    wait_for(decoder, 0, 0)
    with long_calls(decoder, RUNNING + MAX_WAITING):
        wait_for(decoder, RUNNING, MAX_WAITING)
        error = failure(decoder, messages(cases()[CASE].parts))
        assert isinstance(error, Overloaded)
        assert error.retry_after is not None
        assert 0 < error.retry_after <= 30
    wait_for(decoder, 0, 0)
    assert generate(decoder.stub, cases()[CASE].parts).token_ids == cases()[CASE].greedy


def test_the_load_counts_tokens_per_second(decoder: RunningDecoder) -> None:
    answer = generate(decoder.stub, cases()[CASE].parts, max_tokens=200, ignore_eos=True)
    assert load(decoder).tokens_per_second >= len(answer.token_ids) / 10
