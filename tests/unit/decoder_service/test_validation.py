"""What a request may ask of a model, and how every fault is named."""

from __future__ import annotations

import pytest

from decoder_service.engines.base import EngineInfo, Sampling
from decoder_service.validation import DEFAULT_MAX_TOKENS, MAX_VIOLATIONS, check_config
from tandem.decoder.v1 import decoder_pb2 as pb
from tandem.errors import InvalidRequest, LimitExceeded
from tandem.tensor.v1 import tensor_pb2

INFO = EngineInfo(
    engine="transformers",
    engine_version="0",
    hidden_size=16,
    vocab_size=100,
    max_model_len=1000,
    max_num_seqs=4,
    dtype="float32",
)
FLOAT = tensor_pb2.DATA_TYPE_FLOAT32


def ids(*tokens: int) -> pb.PromptPart:
    return pb.PromptPart(token_ids=pb.TokenIds(ids=tokens))


def slot(*shape: int, name: str = "audio", dtype: tensor_pb2.DataType.ValueType = FLOAT) -> pb.PromptPart:
    spec = tensor_pb2.TensorSpec(dtype=dtype, shape=shape)
    return pb.PromptPart(embeddings=pb.EmbeddingSlot(name=name, spec=spec))


def faults(*parts: pb.PromptPart, **sampling: object) -> list[str]:
    params = pb.SamplingParams(**sampling)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest) as caught:
        check_config(pb.GenerateConfig(prompt=parts, sampling=params), INFO)
    return [violation.field for violation in caught.value.violations]


def sampling_of(length: int, **sampling: object) -> Sampling:
    params = pb.SamplingParams(**sampling)  # type: ignore[arg-type]
    return check_config(pb.GenerateConfig(prompt=[ids(*[1] * length)], sampling=params), INFO)


def test_a_draft_is_checked_like_a_prompt() -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_config(pb.GenerateConfig(prompt=[ids(1)], draft_token_ids=[5, 100, -1]), INFO)
    assert [fault.field for fault in caught.value.violations] == [
        "config.draft_token_ids[1]",
        "config.draft_token_ids[2]",
    ]
    with pytest.raises(InvalidRequest, match=r"config\.draft_token_ids: over 1000 ids"):
        check_config(pb.GenerateConfig(prompt=[ids(1)], draft_token_ids=[1] * 1001), INFO)


def test_unset_parameters_are_greedy_with_the_default_length() -> None:
    assert sampling_of(10) == Sampling(max_tokens=DEFAULT_MAX_TOKENS)


def test_set_parameters_arrive_as_they_are() -> None:
    given = sampling_of(
        10, max_tokens=7, temperature=0.5, top_p=0.25, top_k=3, repetition_penalty=1.5, seed=2**64 - 1,
        stop_token_ids=[5, 6], ignore_eos=True,
    )  # fmt: skip
    assert given == Sampling(7, 0.5, 0.25, 3, 1.5, 2**64 - 1, frozenset({5, 6}), True)


def test_the_default_length_shrinks_to_what_fits() -> None:
    assert sampling_of(900).max_tokens == 100


@pytest.mark.parametrize(("length", "max_tokens"), [(1000, None), (990, 11), (1001, 1)])
def test_what_does_not_fit_is_out_of_range(length: int, max_tokens: int | None) -> None:
    with pytest.raises(LimitExceeded):
        sampling_of(length, max_tokens=max_tokens)


def test_an_announced_gigantic_tensor_is_out_of_range_before_any_byte_is_read() -> None:
    with pytest.raises(LimitExceeded):
        check_config(pb.GenerateConfig(prompt=[slot(2**62, 16)]), INFO)


@pytest.mark.parametrize(
    ("part", "field"),
    [
        (pb.PromptPart(), "config.prompt[0]"),
        (ids(), "config.prompt"),
        (ids(100), "config.prompt[0].token_ids.ids[0]"),
        (slot(3), "config.prompt[0].embeddings.spec.shape"),
        (slot(1, 3, 16), "config.prompt[0].embeddings.spec.shape"),
        (slot(3, 17), "config.prompt[0].embeddings.spec.shape"),
        (slot(0, 16), "config.prompt[0].embeddings.spec.shape"),
        (slot(3, 16, name=""), "config.prompt[0].embeddings.name"),
        (slot(3, 16, dtype=tensor_pb2.DATA_TYPE_UINT8), "config.prompt[0].embeddings.spec.dtype"),
        (slot(3, 16, dtype=99), "config.prompt[0].embeddings.spec.dtype"),  # type: ignore[arg-type]
    ],
)
def test_faults_of_the_prompt(part: pb.PromptPart, field: str) -> None:
    assert faults(part) == [field]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 0),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("temperature", 1e-40),
        ("temperature", 0.0099),
        ("temperature", 2.01),
        ("top_p", 0.0),
        ("top_p", 1.01),
        ("top_p", float("nan")),
        ("top_k", -1),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", float("inf")),
        ("repetition_penalty", float("nan")),
        ("repetition_penalty", 1e-38),
        ("repetition_penalty", 0.099),
        ("repetition_penalty", 10.01),
    ],
)
def test_faults_of_the_sampling(name: str, value: float) -> None:
    assert faults(ids(1), **{name: value}) == [f"config.sampling.{name}"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 0.0),
        ("temperature", 0.01),
        ("temperature", 2.0),
        ("top_p", 1e-45),
        ("top_p", 1.0),
        ("top_k", 0),
        ("top_k", 2**31 - 1),
        ("repetition_penalty", 0.1),
        ("repetition_penalty", 10.0),
    ],
)
def test_the_limits_themselves_are_allowed(name: str, value: float) -> None:
    """Exactly as they are written, though the wire has float32."""
    assert getattr(sampling_of(10, **{name: value}), name) == pytest.approx(value)


def test_all_faults_are_told_at_once() -> None:
    found = faults(ids(1, -5), slot(3, 16), slot(2, 16), top_p=2.0, stop_token_ids=[400])
    assert found == [
        "config.prompt[0].token_ids.ids[1]",
        "config.prompt[2].embeddings.name",
        "config.sampling.top_p",
        "config.sampling.stop_token_ids[0]",
    ]


def test_the_list_of_faults_is_bounded() -> None:
    assert len(faults(ids(*[-1] * 500))) == MAX_VIOLATIONS
