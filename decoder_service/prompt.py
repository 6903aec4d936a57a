"""From messages to a request: the config first, then the tensors that it announces, in its order."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable

from decoder_service.engines.base import EngineInfo, GenerationRequest, Part, Prompt, Sampling
from decoder_service.engines.draft import remaining
from decoder_service.validation import check_config
from tandem.decoder.v1 import decoder_pb2 as pb
from tandem.errors import InvalidRequest
from tandem.rpc.tensors import TensorAssembler, WireTensor, byte_size, from_bytes

Messages = AsyncIterator[pb.GenerateRequest]


async def receive_config(messages: Messages) -> pb.GenerateConfig:
    """The config of the stream's first message."""
    first = await anext(messages, None)
    if first is None or not first.HasField("config"):
        raise InvalidRequest.of("config", "the first message of the stream must carry it")
    return first.config


async def receive_prompt(
    config: pb.GenerateConfig, messages: Messages, info: EngineInfo
) -> GenerationRequest:
    """The whole request; the config is checked before the first tensor byte is kept.

    Raises InvalidRequest naming the fields at fault, LimitExceeded when prompt and output are too long.
    """
    sampling = check_config(config, info)
    tensors = await _receive_tensors(_slots(config), messages)
    return _request(config, sampling, tensors.take, final_only=config.final_only)


def whole_request(message: pb.GenerateAtOnceRequest, info: EngineInfo) -> GenerationRequest:
    """The request of a call that is one message. Raises what `receive_prompt` does."""
    config, given = message.config, message.embeddings
    sampling = check_config(config, info)
    slots = _slots(config)
    if len(given) != len(slots):
        raise InvalidRequest.of("embeddings", f"are {len(given)}, config.prompt announces {len(slots)}")
    tensors = {
        slot.name: from_bytes(slot.spec, data, f"embeddings[{index}]")
        for index, (slot, data) in enumerate(zip(slots, given, strict=True))
    }
    return _request(config, sampling, tensors.__getitem__, final_only=True)


def _slots(config: pb.GenerateConfig) -> list[pb.EmbeddingSlot]:
    return [part.embeddings for part in config.prompt if part.HasField("embeddings")]


def _request(
    config: pb.GenerateConfig, sampling: Sampling, tensor: Callable[[str], WireTensor], *, final_only: bool
) -> GenerationRequest:
    """A checked config with its tensors, by name; it gets a request id where it has none."""
    parts = (_part(part, tensor) for part in config.prompt)
    prompt = Prompt(tuple(part for part in parts if len(part)))
    draft = remaining(config.draft_token_ids, prompt.end())
    request_id = config.request_id or uuid.uuid4().hex[:16]
    return GenerationRequest(request_id, prompt, sampling, final_only, draft, urgent=config.urgent)


async def _receive_tensors(slots: list[pb.EmbeddingSlot], messages: Messages) -> TensorAssembler:
    assembler = TensorAssembler(sum(byte_size(slot.spec) for slot in slots))
    announced = {slot.name: slot.spec for slot in slots}
    order = [slot.name for slot in slots]
    async for message in messages:
        if not message.HasField("chunk"):
            raise InvalidRequest.of("config", "may come only once, in the first message")
        chunk = message.chunk
        if chunk.name not in announced:
            raise InvalidRequest.of("chunk.name", f"{chunk.name!r} is not announced in config.prompt")
        if chunk.HasField("spec") and chunk.spec != announced[chunk.name]:
            raise InvalidRequest.of("chunk.spec", f"{chunk.name!r} is not what config.prompt announced")
        assembler.add(chunk)
        if assembler.names() != order[: len(assembler.names())]:
            raise InvalidRequest.of("chunk.name", f"{chunk.name!r} is out of the prompt's order")
    return assembler


def _part(part: pb.PromptPart, tensor: Callable[[str], WireTensor]) -> Part:
    if part.HasField("token_ids"):
        return tuple(part.token_ids.ids)
    name = part.embeddings.name
    values = tensor(name)
    if not values.is_finite():
        raise InvalidRequest.of("chunk.data", f"{name!r} holds values that are not finite")
    return values
