"""A real decoder process over the golden checkpoint, and the recorded prompts in its request format."""

from __future__ import annotations

import contextlib
import functools
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from tandem.decoder.v1 import decoder_pb2 as pb
from tandem.decoder.v1 import decoder_pb2_grpc
from tandem.launcher import Tier, spawn, wait_ready
from tandem.rpc.channels import channel_options
from tandem.rpc.tensors import WireTensor, chunks
from tests.support.ports import free_port
from tests.support.services import NANO

MAX_WAITING = 12
Stub = decoder_pb2_grpc.DecoderServiceStub


@dataclass(frozen=True)
class RunningDecoder:
    engine: str
    address: str
    stub: Stub
    tier: Tier
    metrics_port: int


@contextlib.contextmanager
def running_decoder(engine: str, *arguments: str) -> Iterator[RunningDecoder]:
    """Start `python -m decoder_service`, wait until it is ready, end it."""
    with tempfile.TemporaryDirectory(prefix="tandem-test-") as directory:
        address = f"unix:{directory}/decoder.sock"
        flags = ["--model", str(NANO), "--engine", engine, "--dtype", "fp32", "--listen", address]
        limits = ["--cpu-kv-cache-gib", "1", "--max-waiting-requests", str(MAX_WAITING)]
        metrics = ["--metrics-port", str(port := free_port())]
        given = [*flags, *limits, *metrics, *arguments]
        tier = spawn("decoder", "decoder_service", given, address, Path(directory))
        try:
            wait_ready([tier], timeout=180)
            with grpc.insecure_channel(address, options=channel_options()) as channel:
                yield RunningDecoder(engine, address, Stub(channel), tier, port)
        finally:
            tier.end(grace=20)


@dataclass(frozen=True)
class Case:
    """One recorded prompt: [prefix | audio | suffix], the whole as embeddings, and the greedy tokens."""

    name: str
    prefix: tuple[int, ...]
    audio: np.ndarray[Any, np.dtype[np.float32]]
    suffix: tuple[int, ...]
    inputs_embeds: np.ndarray[Any, np.dtype[np.float32]]
    greedy: list[int]

    @property
    def parts(self) -> list[object]:
        return [self.prefix, self.audio, self.suffix]


@functools.cache
def cases() -> dict[str, Case]:
    """The nine recorded prompts by their name in expected.json."""
    described = json.loads((NANO / "expected.json").read_text(encoding="utf-8"))["cases"]
    with np.load(NANO / "expected.npz") as file:
        arrays = {key: file[key] for key in file.files}
    return {one["case"]: _case(one, arrays) for one in described if "greedy_token_ids" in one}


def _case(one: dict[str, Any], arrays: dict[str, Any]) -> Case:
    ids, begin = one["prompt_token_ids"], one["audio_begin"]
    return Case(
        name=one["case"],
        prefix=tuple(ids[:begin]),
        audio=arrays[f"{one['case'].split('.')[0]}.audio_embeds"],
        suffix=tuple(ids[begin + one["audio_tokens"] :]),
        inputs_embeds=arrays[f"{one['case']}.inputs_embeds"],
        greedy=one["greedy_token_ids"],
    )


CASE_NAMES = [f"{recording}.{prompt}" for recording in range(3) for prompt in range(3)]


def messages(parts: Sequence[Any], **config: Any) -> list[pb.GenerateRequest]:
    """The request stream for runs of ids (tuples), arrays and WireTensors."""
    tensors: dict[str, WireTensor] = {}
    prompt = []
    for part in parts:
        if isinstance(part, tuple):
            prompt.append(pb.PromptPart(token_ids=pb.TokenIds(ids=part)))
            continue
        name = f"part{len(tensors)}"
        tensors[name] = part if isinstance(part, WireTensor) else WireTensor.of(part)
        slot = pb.EmbeddingSlot(name=name, spec=tensors[name].spec)
        prompt.append(pb.PromptPart(embeddings=slot))
    first = pb.GenerateRequest(config=pb.GenerateConfig(prompt=prompt, **config))
    pieces = [pb.GenerateRequest(chunk=c) for name, tensor in tensors.items() for c in chunks(name, tensor)]
    return [first, *pieces]


def at_once(parts: Sequence[Any], **config: Any) -> pb.GenerateAtOnceRequest:
    """The same in one message."""
    first, *rest = messages(parts, **config)
    data: dict[str, bytes] = {}
    for message in rest:
        data[message.chunk.name] = data.get(message.chunk.name, b"") + message.chunk.data
    return pb.GenerateAtOnceRequest(config=first.config, embeddings=data.values())


@dataclass(frozen=True)
class Answer:
    token_ids: list[int]
    log_probs: list[float]
    result: pb.GenerateResult


def generate(stub: Stub, parts: Sequence[Any], timeout: float = 60, **sampling: Any) -> Answer:
    """One whole call."""
    sampling.setdefault("max_tokens", 24)
    return collect(
        stub.Generate(iter(messages(parts, sampling=pb.SamplingParams(**sampling))), timeout=timeout)
    )


def collect(responses: Any) -> Answer:
    """Join a stream of responses; checks that the result comes last and once."""
    received = list(responses)
    assert [message.HasField("result") for message in received] == [False] * (len(received) - 1) + [True]
    return Answer(
        [token for message in received for token in message.token_ids],
        [value for message in received for value in message.log_probs],
        received[-1].result,
    )
