"""Receives a request stream: the config first, then the tensors that it announces, in its order."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

from decoder_service.engines.base import EngineInfo, GenerationRequest, Part, Prompt
from decoder_service.engines.draft import remaining
from decoder_service.validation import check_config
from tandem.decoder.v1 import decoder_pb2 as pb
from tandem.errors import InvalidRequest
from tandem.rpc.tensors import TensorAssembler, byte_size

Messages = AsyncIterator[pb.GenerateRequest]


async def receive_config(messages: Messages) -> pb.GenerateConfig:
    """The config of the stream's first message, with a request id."""
    first = await anext(messages, None)
    if first is None or not first.HasField("config"):
        raise InvalidRequest.of("config", "the first message of the stream must carry it")
    config = first.config
    config.request_id = config.request_id or uuid.uuid4().hex[:16]
    return config


async def receive_prompt(
    config: pb.GenerateConfig, messages: Messages, info: EngineInfo
) -> GenerationRequest:
    """The whole request; the config is checked before the first tensor byte is kept.

    Raises InvalidRequest naming the fields at fault, LimitExceeded when prompt and output are too long.
    """
    sampling = check_config(config, info)
    slots = [part.embeddings for part in config.prompt if part.HasField("embeddings")]
    tensors = await _receive_tensors(slots, messages)
    parts = (_part(part, tensors) for part in config.prompt)
    prompt = Prompt(tuple(part for part in parts if len(part)))
    draft = remaining(config.draft_token_ids, prompt.end())
    return GenerationRequest(
        config.request_id, prompt, sampling, config.final_only, draft, urgent=config.urgent
    )


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


def _part(part: pb.PromptPart, tensors: TensorAssembler) -> Part:
    if part.HasField("token_ids"):
        return tuple(part.token_ids.ids)
    name = part.embeddings.name
    values = tensors.take(name)
    if not values.is_finite():
        raise InvalidRequest.of("chunk.data", f"{name!r} holds values that are not finite")
    return values
