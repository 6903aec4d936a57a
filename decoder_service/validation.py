"""Judges a GenerateConfig before any tensor is received: lengths, dtypes, ids and sampling parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from decoder_service.engines.base import EngineInfo, Sampling
from tandem.decoder.v1 import decoder_pb2 as pb
from tandem.errors import FieldViolation, InvalidRequest, LimitExceeded
from tandem.tensor.v1 import tensor_pb2

DEFAULT_MAX_TOKENS = 512
FLOATS = (tensor_pb2.DATA_TYPE_FLOAT32, tensor_pb2.DATA_TYPE_FLOAT16, tensor_pb2.DATA_TYPE_BFLOAT16)
MAX_VIOLATIONS = 20
MAX_REQUEST_ID = 128
# Below the least temperature, and with stronger penalties, scores leave the range of float32 and the
# probabilities are no numbers any more. vLLM takes no temperature above the greatest.
# 0.01 in float32, as the wire has it, is a little less than 0.01.
MIN_TEMPERATURE, MAX_TEMPERATURE = float(np.float32(0.01)), 2.0
MIN_REPETITION_PENALTY, MAX_REPETITION_PENALTY = 0.1, 10.0


@dataclass(slots=True)
class Violations:
    """Collects what is wrong with a request, so that its author repairs it once."""

    found: list[FieldViolation] = field(default_factory=list)

    def check(self, good: bool, path: str, description: str) -> None:
        if not good and len(self.found) < MAX_VIOLATIONS:
            self.found.append(FieldViolation(path, description))

    def raise_if_any(self) -> None:
        if self.found:
            first = self.found[0]
            raise InvalidRequest(f"{first.field}: {first.description}", violations=tuple(self.found))


def check_config(config: pb.GenerateConfig, info: EngineInfo) -> Sampling:
    """The request's sampling with defaults filled in.

    Raises InvalidRequest with every bad field, and LimitExceeded when prompt and output do not fit the model.
    """
    wrong = Violations()
    wrong.check(
        len(config.request_id) <= MAX_REQUEST_ID, "config.request_id", f"over {MAX_REQUEST_ID} characters"
    )
    length = _check_prompt(config.prompt, info, wrong)
    _check_sampling(config.sampling, info, wrong)
    draft = config.draft_token_ids
    wrong.check(len(draft) <= info.max_model_len, "config.draft_token_ids", f"over {info.max_model_len} ids")
    _check_ids(draft, "config.draft_token_ids", info, wrong)
    wrong.raise_if_any()
    return _sampling(config.sampling, _max_tokens(config.sampling, length, info.max_model_len))


def _check_prompt(parts: Sequence[pb.PromptPart], info: EngineInfo, wrong: Violations) -> int:
    """Length of the prompt in tokens."""
    length = 0
    names: set[str] = set()
    for index, part in enumerate(parts):
        path = f"config.prompt[{index}]"
        if part.HasField("token_ids"):
            _check_ids(part.token_ids.ids, f"{path}.token_ids.ids", info, wrong)
            length += len(part.token_ids.ids)
        elif part.HasField("embeddings"):
            slot = part.embeddings
            wrong.check(slot.name not in names, f"{path}.embeddings.name", f"{slot.name!r} is used twice")
            names.add(slot.name)
            length += _check_slot(slot, f"{path}.embeddings", info, wrong)
        else:
            wrong.check(False, path, "neither token_ids nor embeddings")
    wrong.check(length > 0 or bool(wrong.found), "config.prompt", "the prompt is empty")
    return length


def _check_slot(slot: pb.EmbeddingSlot, path: str, info: EngineInfo, wrong: Violations) -> int:
    """Number of positions that the embeddings take."""
    shape = list(slot.spec.shape)
    wrong.check(bool(slot.name), f"{path}.name", "empty")
    wrong.check(slot.spec.dtype in FLOATS, f"{path}.spec.dtype", "not FLOAT32, FLOAT16 or BFLOAT16")
    fits = len(shape) == 2 and shape[0] > 0 and shape[1] == info.hidden_size
    wrong.check(fits, f"{path}.spec.shape", f"is {shape}, must be [n, {info.hidden_size}] with n > 0")
    return shape[0] if fits else 0


def _check_ids(ids: Sequence[int], path: str, info: EngineInfo, wrong: Violations) -> None:
    if not ids or (min(ids) >= 0 and max(ids) < info.vocab_size):
        return
    for index, token in enumerate(ids[: info.max_model_len]):
        known = 0 <= token < info.vocab_size
        wrong.check(known, f"{path}[{index}]", f"{token} is outside the vocabulary of {info.vocab_size}")


def _check_sampling(sampling: pb.SamplingParams, info: EngineInfo, wrong: Violations) -> None:
    def check(name: str, good: bool, rule: str) -> None:
        wrong.check(not sampling.HasField(name) or good, f"config.sampling.{name}", rule)  # type: ignore[arg-type]

    temperature, penalty = sampling.temperature, sampling.repetition_penalty
    check("max_tokens", sampling.max_tokens >= 1, "must be at least 1")
    drawable = MIN_TEMPERATURE <= temperature <= MAX_TEMPERATURE
    check("temperature", temperature == 0 or drawable, "must be 0 (greedy), or at least 0.01 and at most 2")
    check("top_p", 0 < sampling.top_p <= 1, "must be above 0 and at most 1")
    check("top_k", sampling.top_k >= 0, "must be 0 (off) or above")
    bearable = MIN_REPETITION_PENALTY <= penalty <= MAX_REPETITION_PENALTY
    check("repetition_penalty", bearable, "must be at least 0.1 and at most 10")
    _check_ids(sampling.stop_token_ids, "config.sampling.stop_token_ids", info, wrong)


def _max_tokens(sampling: pb.SamplingParams, length: int, max_model_len: int) -> int:
    """As asked; when unset, the default or as many as fit."""
    room = max_model_len - length
    wanted = sampling.max_tokens if sampling.HasField("max_tokens") else max(1, min(DEFAULT_MAX_TOKENS, room))
    if wanted > room:
        raise LimitExceeded(
            f"prompt of {length} and max_tokens of {wanted} exceed the model's {max_model_len} tokens",
            metadata={"prompt_tokens": str(length), "max_model_len": str(max_model_len)},
        )
    return wanted


def _sampling(sampling: pb.SamplingParams, max_tokens: int) -> Sampling:
    return Sampling(
        max_tokens=max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p if sampling.HasField("top_p") else 1.0,
        top_k=sampling.top_k,
        repetition_penalty=sampling.repetition_penalty if sampling.HasField("repetition_penalty") else 1.0,
        seed=sampling.seed if sampling.HasField("seed") else None,
        stop_token_ids=frozenset(sampling.stop_token_ids),
        ignore_eos=sampling.ignore_eos,
    )
