"""The encoder's side of the tier hop: prompt and embeddings out, tokens in, re-sent when a decoder dies."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass

import grpc
import grpc.aio

from encoder_service.batch_calls import BatchCalls
from tandem.access import Access
from tandem.decoder.v1 import decoder_pb2 as pb
from tandem.decoder.v1 import decoder_pb2_grpc
from tandem.errors import CapabilityMissing, DeadlineExceeded, Overloaded, Unavailable
from tandem.rpc.calls import streaming_call
from tandem.rpc.channels import connect
from tandem.rpc.status import from_rpc_error
from tandem.rpc.tensors import WireTensor, chunks
from tandem.rpc.wire import Buffer, field

log = logging.getLogger("tandem.encoder.decoder_client")

MAX_ATTEMPTS = 4
OVERLOAD_SECONDS = 10.0
_BACKOFF_SECONDS = 0.2
_LONGEST_WAIT_SECONDS = 1.0
_AUDIO = "audio_embeds"


def ignore() -> None:
    """Nobody waits for that."""


@dataclass(frozen=True, slots=True)
class DecodeRequest:
    """One segment for the decoder: [prefix ids | embeds [n, hidden] | suffix ids]."""

    request_id: str
    prefix_token_ids: tuple[int, ...]
    embeds: WireTensor
    suffix_token_ids: tuple[int, ...]
    sampling: pb.SamplingParams
    model_hash: str
    final_only: bool = False
    draft_token_ids: tuple[int, ...] = ()
    """What the answer probably is; empty for no draft."""
    urgent: bool = False
    on_sent: Callable[[], None] = ignore
    """Called when it is on its way for the first time, and maybe again."""

    def messages(self) -> list[pb.GenerateRequest]:
        """The request stream of Generate."""
        pieces = (pb.GenerateRequest(chunk=chunk) for chunk in chunks(_AUDIO, self.embeds))
        return [pb.GenerateRequest(config=self._config()), *pieces]

    def encoded(self) -> list[Buffer]:
        """All of it, an encoded GenerateAtOnceRequest: the prompt of a GenerateBatch."""
        message = pb.GenerateAtOnceRequest(config=self._config())
        return [
            message.SerializeToString(),
            *field(pb.GenerateAtOnceRequest, "embeddings", [self.embeds.data]),
        ]

    def _config(self) -> pb.GenerateConfig:
        slot = pb.EmbeddingSlot(name=_AUDIO, spec=self.embeds.spec)
        return pb.GenerateConfig(
            request_id=self.request_id,
            prompt=[
                pb.PromptPart(token_ids=pb.TokenIds(ids=self.prefix_token_ids)),
                pb.PromptPart(embeddings=slot),
                pb.PromptPart(token_ids=pb.TokenIds(ids=self.suffix_token_ids)),
            ],
            sampling=self.sampling,
            expected_model_hash=self.model_hash,
            final_only=self.final_only,
            draft_token_ids=self.draft_token_ids,
            urgent=self.urgent,
        )

    @property
    def repeatable(self) -> bool:
        """Greedy and seeded requests give the same tokens again."""
        return not self.sampling.temperature or self.sampling.HasField("seed")


class _Diverged(Exception):
    """An attempt answers otherwise than the one before it; says how."""


class _Delivered:
    """What was passed on of an answer, over all attempts at it.

    Even greedy answers may differ: in bfloat16 two tokens that are about as likely may change places with
    what else is in their batch. Tokens of one after those of another are a text that no decoder ever gave.
    """

    def __init__(self) -> None:
        self.token_ids: list[int] = []
        self._given = 0
        """Tokens of the present attempt."""

    def begin(self) -> None:
        """The next response is the first of an attempt."""
        self._given = 0

    def add(self, response: pb.GenerateResponse) -> pb.GenerateResponse:
        """What of a response is new. Raises _Diverged when it is not what was passed on before."""
        known = self.token_ids[self._given : self._given + len(response.token_ids)]
        if list(response.token_ids[: len(known)]) != known:
            raise _Diverged("asked for again, it has other tokens")
        self._given += len(response.token_ids)
        if response.HasField("result") and self._given < len(self.token_ids):
            raise _Diverged(f"asked for again, it ends after {self._given} tokens")
        fresh = _without_first(response, len(known))
        self.token_ids += fresh.token_ids
        return fresh


class DecoderClient:
    """Calls one decoder target (a single address or a name that resolves to several pods)."""

    def __init__(self, target: str, access: Access | None = None, patience: float = OVERLOAD_SECONDS) -> None:
        """`patience` is how many seconds full decoders are asked again for one segment."""
        self.target = target
        self._patience = patience
        self._answers_batches = True
        self._channel = connect(target, access=access)
        # To all decoders before there are prompts: calls that only one was there for would stay with it.
        self._channel.get_state(try_to_connect=True)
        self._stub: decoder_pb2_grpc.DecoderServiceAsyncStub = decoder_pb2_grpc.DecoderServiceStub(
            self._channel
        )
        self._batches = BatchCalls(self._channel)

    async def generate(
        self, request: DecodeRequest, timeout: float | None = None
    ) -> AsyncIterator[pb.GenerateResponse]:
        """Tokens as they come; the last message carries the result. `timeout` is in seconds.

        When a decoder goes away the embeddings are sent again, to another one where there is one; tokens
        that were passed on before are skipped. When it is full they wait here, where they cost least. Raises
        the decoder's own error, typed, and Unavailable when every attempt found none, or one that answers
        otherwise than was passed on. Closing the iterator cancels the call.
        """
        delivered, lost, refused = _Delivered(), 0, 0
        give_up = time.monotonic() + self._patience
        while True:
            delivered.begin()
            try:
                async with contextlib.aclosing(self._attempt(request, timeout)) as responses:
                    async for response in responses:
                        fresh = delivered.add(response)
                        if fresh.token_ids or fresh.HasField("result"):
                            yield fresh
                return
            except _Diverged as error:
                raise Unavailable(f"the decoder went away, and its answer cannot go on: {error}") from None
            except Unavailable as error:
                lost += 1
                can_repeat = not delivered.token_ids or request.repeatable
                if lost == MAX_ATTEMPTS or not can_repeat:
                    raise
                log.warning(
                    "request %s: decoder %s: %s; sending again", request.request_id, self.target, error
                )
                await asyncio.sleep(_BACKOFF_SECONDS * 2 ** (lost - 1))
            except Overloaded as error:
                delay = _again_in(error, refused)
                if time.monotonic() + delay > give_up:
                    raise
                refused += 1
                await asyncio.sleep(delay)

    async def _attempt(
        self, request: DecodeRequest, timeout: float | None
    ) -> AsyncGenerator[pb.GenerateResponse, None]:
        if request.final_only and self._answers_batches:
            answer = await self._whole(request, timeout)
            if answer is not None:
                yield answer
                return
        request.on_sent()
        async with streaming_call(self._stub.Generate, request.messages(), timeout) as call:
            async for response in call:
                yield response

    async def _whole(self, request: DecodeRequest, timeout: float | None) -> pb.GenerateResponse | None:
        """The whole answer; None from a decoder of a release that does not know GenerateBatch."""
        try:
            async with asyncio.timeout(timeout):
                return await self._batches.answer(request.encoded(), request.on_sent)
        except TimeoutError:
            raise DeadlineExceeded(f"the decoder did not answer within {timeout:g} s") from None
        except CapabilityMissing:
            self._answers_batches = False
            return None

    async def model_info(self, timeout: float = 5.0) -> pb.GetModelInfoResponse:
        try:
            return await self._stub.GetModelInfo(pb.GetModelInfoRequest(), timeout=timeout)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    async def close(self) -> None:
        await self._channel.close()


def _again_in(error: Overloaded, refused: int) -> float:
    """Seconds: as advised, longer every time, and not the same for all who wait."""
    advised = error.retry_after or _BACKOFF_SECONDS
    return float(min(advised * 2**refused, max(advised, _LONGEST_WAIT_SECONDS)) * random.uniform(0.75, 1.25))


def _without_first(response: pb.GenerateResponse, count: int) -> pb.GenerateResponse:
    if count == 0:
        return response
    trimmed = pb.GenerateResponse(token_ids=response.token_ids[count:], log_probs=response.log_probs[count:])
    if response.HasField("result"):
        trimmed.result.CopyFrom(response.result)
    return trimmed
