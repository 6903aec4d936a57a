"""DecoderService over gRPC: receive, check, generate, stream; a cancelled call frees its engine slot."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc.aio

from decoder_service.admission import Admission, TokenRate
from decoder_service.batch_call import BatchCall, first_of
from decoder_service.engines.base import Engine, FinishReason, GenerationRequest, TokenDelta
from decoder_service.prompt import Messages, receive_config, receive_prompt, whole_request
from decoder_service.telemetry import observe_request
from tandem.decoder.v1 import decoder_pb2 as pb
from tandem.decoder.v1 import decoder_pb2_grpc
from tandem.errors import DeadlineExceeded, ModelMismatch, Unavailable
from tandem.rpc.durations import duration
from tandem.rpc.handlers import streaming, unary
from tandem.rpc.metrics import measured
from tandem.tensor.v1 import tensor_pb2

log = logging.getLogger("decoder.server")

_LINE = "request %s: %d prompt tokens, %d tokens in %.3f s"
_LOG_SECONDS = 0.005
"""After an answer."""

Context = grpc.aio.ServicerContext[Any, Any]

DTYPES = {
    "float32": tensor_pb2.DATA_TYPE_FLOAT32,
    "float16": tensor_pb2.DATA_TYPE_FLOAT16,
    "bfloat16": tensor_pb2.DATA_TYPE_BFLOAT16,
}
FINISH = {FinishReason.STOP: pb.FINISH_REASON_STOP, FinishReason.LENGTH: pb.FINISH_REASON_LENGTH}


@dataclass(frozen=True, slots=True)
class Served:
    """A started engine and the checkpoint behind it."""

    engine: Engine
    model: str
    model_hash: str
    admission: Admission


@dataclass(slots=True)
class Progress:
    """One call's clock: seconds from its start to each milestone, and what came out."""

    started: float
    received: float = 0.0
    first_token: float | None = None
    tokens: int = 0

    def count(self, delta: TokenDelta, *, final_only: bool) -> None:
        """Tokens came. When the first of them did is unknown if all come together."""
        if self.first_token is None and not final_only:
            self.first_token = self.elapsed()
        self.tokens += len(delta.token_ids)

    def elapsed(self) -> float:
        return time.monotonic() - self.started

    def timing(self) -> pb.GenerateTiming:
        return pb.GenerateTiming(
            receive=duration(self.received),
            first_token=None if self.first_token is None else duration(self.first_token - self.received),
            total=duration(self.elapsed() - self.received),
        )


class DecoderServicer(decoder_pb2_grpc.DecoderServiceServicer):
    """Answers Unavailable until `serve` names an engine."""

    def __init__(self, receive_timeout: float = 30.0) -> None:
        self._receive_timeout = receive_timeout
        self._served: Served | None = None
        self.rate = TokenRate()

    def serve(self, served: Served | None) -> None:
        """Start answering with this engine; None stops."""
        self._served = served

    def _ready(self) -> Served:
        if self._served is None:
            raise Unavailable("the language model is not loaded", retry_after=1.0)
        return self._served

    @streaming
    async def Generate(self, messages: Messages, context: Context) -> AsyncIterator[pb.GenerateResponse]:
        served = self._ready()
        with served.admission.slot():
            progress = Progress(time.monotonic())
            request = await self._receive(served, messages)
            async with aclosing(self._answers(served, request, progress)) as answers:
                async for answer in answers:
                    yield answer

    @unary
    async def GenerateAtOnce(
        self, message: pb.GenerateAtOnceRequest, context: Context
    ) -> pb.GenerateAtOnceResponse:
        return pb.GenerateAtOnceResponse(answer=await self._whole(message, Progress(time.monotonic())))

    @streaming
    async def GenerateBatch(
        self, messages: AsyncIterator[pb.GenerateBatchRequest], context: Context
    ) -> AsyncIterator[pb.GenerateBatchResponse]:
        async with self._in_time():
            first = await first_of(messages)

        async def answer(prompt: pb.GenerateAtOnceRequest, arrived: float) -> pb.GenerateResponse:
            with measured("GenerateAtOnce"):
                return await self._whole(prompt, Progress(arrived))

        async with aclosing(BatchCall(answer).responses(first, messages)) as responses:
            async for response in responses:
                yield response

    async def _whole(self, message: pb.GenerateAtOnceRequest, progress: Progress) -> pb.GenerateResponse:
        """All tokens of one prompt and the result."""
        served = self._ready()
        with served.admission.slot():
            _check_model(served, message.config)
            request = whole_request(message, served.engine.info)
            whole = pb.GenerateResponse()
            async with aclosing(self._answers(served, request, progress)) as answers:
                async for answer in answers:
                    whole.MergeFrom(answer)
            return whole

    async def _answers(
        self, served: Served, request: GenerationRequest, progress: Progress
    ) -> AsyncGenerator[pb.GenerateResponse, None]:
        """The engine's tokens as messages, counted and logged."""
        progress.received = progress.elapsed()
        async with aclosing(served.engine.generate(request)) as deltas:
            async for delta in deltas:
                progress.count(delta, final_only=request.final_only)
                self.rate.add(len(delta.token_ids))
                if delta.token_ids or delta.finish:
                    yield _response(request, delta, progress)
        prompt, total = len(request.prompt), progress.elapsed()
        observe_request(prompt, progress.tokens, progress.received, progress.first_token, total)
        # The answer goes first: a line takes as long as all the rest of its way out.
        asyncio.get_running_loop().call_later(
            _LOG_SECONDS, log.info, _LINE, request.request_id, prompt, progress.tokens, total
        )

    async def _receive(self, served: Served, messages: Messages) -> GenerationRequest:
        async with self._in_time():
            config = await receive_config(messages)
            _check_model(served, config)
            return await receive_prompt(config, messages, served.engine.info)

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        """What is awaited in the block must have arrived within the time for it."""
        try:
            async with asyncio.timeout(self._receive_timeout):
                yield
        except TimeoutError:
            raise DeadlineExceeded(f"the prompt did not arrive within {self._receive_timeout:g} s") from None

    @unary
    async def GetModelInfo(
        self, request: pb.GetModelInfoRequest, context: Context
    ) -> pb.GetModelInfoResponse:
        served = self._ready()
        info = served.engine.info
        return pb.GetModelInfoResponse(
            model=served.model,
            model_hash=served.model_hash,
            engine=info.engine,
            engine_version=info.engine_version,
            hidden_size=info.hidden_size,
            vocab_size=info.vocab_size,
            max_model_len=info.max_model_len,
            dtype=DTYPES[info.dtype],
            eos_token_ids=sorted(info.eos_token_ids),
            tensor_parallel_size=info.tensor_parallel_size,
            speculative_tokens=info.speculative_tokens,
        )

    @unary
    async def GetLoad(self, request: pb.GetLoadRequest, context: Context) -> pb.GetLoadResponse:
        served = self._ready()
        load = served.engine.load()
        return pb.GetLoadResponse(
            running_requests=load.running,
            waiting_requests=load.waiting,
            kv_cache_usage=load.kv_cache_usage,
            tokens_per_second=self.rate.per_second(),
            max_waiting_requests=served.admission.max_waiting,
        )


def _check_model(served: Served, config: pb.GenerateConfig) -> None:
    expected = config.expected_model_hash
    if expected and expected.lower() != served.model_hash:
        raise ModelMismatch(
            f"this decoder serves model {served.model_hash[:12]}, not {expected[:12]}",
            metadata={"model_hash": served.model_hash},
        )


def _response(request: GenerationRequest, delta: TokenDelta, progress: Progress) -> pb.GenerateResponse:
    response = pb.GenerateResponse(token_ids=delta.token_ids, log_probs=delta.log_probs)
    if delta.finish is not None:
        response.result.CopyFrom(
            pb.GenerateResult(
                finish_reason=FINISH[delta.finish],
                prompt_tokens=len(request.prompt),
                completion_tokens=progress.tokens,
                timing=progress.timing(),
            )
        )
    return response
