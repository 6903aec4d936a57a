"""The vLLM engine: AsyncLLM with mixed prompts, so that text positions keep their token ids."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from decoder_service.engines.base import (
    EngineDead,
    EngineInfo,
    EngineLoad,
    FinishReason,
    GenerationRequest,
    Prompt,
    TokenDelta,
)
from decoder_service.engines.graphs import graph_config
from decoder_service.engines.model_facts import ModelFacts, read_model_facts
from decoder_service.engines.prompt_rows import prompt_rows
from decoder_service.engines.settings import TORCH_NAMES, EngineSettings
from decoder_service.engines.turns import Turns
from decoder_service.engines.vllm_draft import DRAFT, speculation
from decoder_service.engines.vllm_stats import StatLogger

log = logging.getLogger("decoder.vllm")

MAX_NUM_SEQS_GPU = 512
"""Larger batches ran slower per token than this one."""
MAX_NUM_SEQS_CPU = 32
DEATH_POLL_SECONDS = 0.5
# vLLM takes smaller ones first.
_URGENT = -1


class VllmEngine:
    """vLLM runs its engine core in a child process; this class talks to it from the event loop."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._stats = StatLogger()
        self._active = 0
        self._numbers = itertools.count()
        self._turns = Turns()
        self._llm: Any = None

    @property
    def info(self) -> EngineInfo:
        return self._info

    async def start(self) -> None:
        _prepare_environment(self._settings)
        await asyncio.to_thread(self._build)
        if self._settings.speculative_tokens:
            await self._llm.collective_rpc("connect_drafts")

    def _build(self) -> None:
        import torch
        import vllm
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.inputs import EmbedsInput
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.engine.async_llm import AsyncLLM

        if "is_token_ids" not in EmbedsInput.__annotations__:
            raise RuntimeError(f"vLLM {vllm.__version__} has no mixed prompts; install vllm>=0.26")
        facts = read_model_facts(self._settings.model)
        arguments = _engine_arguments(self._settings, facts)
        _leave_processors_alone()
        if count := self._settings.speculative_tokens:
            arguments |= speculation(count)
        # Neither returned nor a local: vLLM keeps tracebacks of this call, and they would keep it alive.
        self._llm = AsyncLLM.from_engine_args(
            AsyncEngineArgs(**arguments),
            # The API server's limits: the bare class takes only 2,048 tokens a step.
            usage_context=UsageContext.OPENAI_API_SERVER,
            stat_loggers=[self._stats.factory],
        )
        if not self._settings.vllm_metrics:
            # Our reader of the scheduler switched them on: a quarter of the thread that all requests pass.
            self._llm.log_stats = self._llm.output_processor.log_stats = False
        self._dtype: torch.dtype = getattr(torch, arguments["dtype"])
        self._info = EngineInfo(
            engine="vllm",
            engine_version=vllm.__version__,
            hidden_size=facts.hidden_size,
            vocab_size=facts.vocab_size,
            max_model_len=int(self._llm.vllm_config.model_config.max_model_len),
            max_num_seqs=arguments["max_num_seqs"],
            dtype=arguments["dtype"],
            eos_token_ids=facts.eos_token_ids,
            tensor_parallel_size=self._settings.tensor_parallel_size,
            speculative_tokens=self._settings.speculative_tokens,
        )

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[TokenDelta, None]:
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        llm = self._llm
        if llm is None:
            raise EngineDead("the engine is not running")
        stop_ids = self._stop_ids(request)
        self._active += 1
        try:
            # A millisecond each: answers, and prompts of other calls, do not wait for all that came together.
            await self._turns.next()
            prompt, sampling = self._prompt(request.prompt), self._sampling_params(request, stop_ids)
            # vLLM wants ids of its own: two callers may choose the same one.
            outputs = llm.generate(
                prompt,
                sampling,
                request_id=f"{request.request_id}-{next(self._numbers)}",
                priority=_URGENT if request.urgent else 0,
            )
            async with aclosing(outputs):
                async for output in outputs:
                    yield _delta(output.outputs[0], stop_ids)
        except EngineDeadError as error:
            raise EngineDead("the vLLM engine died") from error
        except EngineGenerateError as error:
            if llm.errored:
                raise EngineDead("the vLLM engine died") from error
            raise
        finally:
            self._active -= 1

    def _stop_ids(self, request: GenerationRequest) -> frozenset[int]:
        sampling = request.sampling
        return frozenset() if sampling.ignore_eos else self._info.eos_token_ids | sampling.stop_token_ids

    def _prompt(self, prompt: Prompt) -> Any:
        """As vLLM itself would render it: prompts that are not, it takes in more slowly, in a thread."""
        from vllm.inputs import embeds_input

        return embeds_input(
            prompt_rows(prompt, self._info.hidden_size, self._dtype),
            prompt_token_ids=prompt.token_ids(),
            is_token_ids=prompt.is_token(),
        )

    def _sampling_params(self, request: GenerationRequest, stop_ids: frozenset[int]) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        sampling = request.sampling
        draft = request.verifiable if self._settings.speculative_tokens else ()
        return SamplingParams(
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            repetition_penalty=sampling.repetition_penalty,
            seed=None if sampling.seed is None else sampling.seed % 2**63,
            stop_token_ids=sorted(stop_ids),
            ignore_eos=sampling.ignore_eos,
            logprobs=0 if self._settings.log_probs else None,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY if request.final_only else RequestOutputKind.DELTA,
            extra_args={DRAFT: list(draft)} if draft else None,
        )

    def load(self) -> EngineLoad:
        running = min(self._stats.running, self._active)
        return EngineLoad(running, self._active - running, self._stats.kv_cache_usage, self._stats.drafts)

    async def wait_dead(self) -> str:
        while self._llm is None or not self._llm.errored:
            await asyncio.sleep(DEATH_POLL_SECONDS)
        return "the vLLM engine core process died"

    async def close(self) -> None:
        llm, self._llm = self._llm, None
        if llm is None:
            return
        if llm.output_handler is not None:
            # It would report the end of the core process as a failure.
            llm.output_handler.cancel()
        await asyncio.to_thread(llm.shutdown)
        del llm
        # AsyncLLM sits in a reference cycle and shuts down again when freed: too late at interpreter exit.
        gc.collect()


def _prepare_environment(settings: EngineSettings) -> None:
    """vLLM reads these when it is imported; what the operator has set stays."""
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(settings.cpu_kv_cache_gib))
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    kind, _, index = settings.device.partition(":")
    if kind == "cuda" and index:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[int(index)] if visible else index


def _leave_processors_alone() -> None:
    """One thread for tensors on the host, where the model is on a GPU.

    What is computed on the host is small, and every operation on it leaves a thread spinning on each core:
    seven cores of sixteen, measured beside the other tiers on one machine. The engine core inherits this;
    what the operator has set stays.
    """
    import torch
    from vllm.platforms import current_platform

    if not current_platform.is_cpu() and "OMP_NUM_THREADS" not in os.environ:
        os.environ["OMP_NUM_THREADS"] = "1"
        torch.set_num_threads(1)


def _engine_arguments(settings: EngineSettings, facts: ModelFacts) -> dict[str, Any]:
    from vllm.platforms import current_platform

    on_cpu = bool(current_platform.is_cpu())
    if settings.device != "auto" and (settings.device.startswith("cpu") != on_cpu):
        raise RuntimeError(f"this vLLM runs on {current_platform.device_type}, not on {settings.device}")
    dtype = settings.dtype
    if dtype == "auto":
        dtype = "bf16" if not on_cpu and current_platform.has_device_capability(80) else "fp32"
    if dtype == "fp16":
        log.warning("float16 overflows in some published models; bf16 or fp32 are safe")
    max_num_seqs = settings.max_num_seqs or (MAX_NUM_SEQS_CPU if on_cpu else MAX_NUM_SEQS_GPU)
    graphs = {}
    if not (on_cpu or settings.enforce_eager):
        drafted = settings.speculative_tokens
        graphs["compilation_config"] = graph_config(settings.cudagraph_mode, drafted, max_num_seqs)
    return {
        **graphs,
        "model": str(settings.model),
        "skip_tokenizer_init": True,
        "enable_prompt_embeds": True,
        "dtype": TORCH_NAMES[dtype],
        "max_model_len": min(settings.max_model_len, facts.max_positions),
        "max_num_seqs": max_num_seqs,
        "tensor_parallel_size": settings.tensor_parallel_size,
        "gpu_memory_utilization": settings.gpu_memory_utilization,
        "enforce_eager": on_cpu if settings.enforce_eager is None else settings.enforce_eager,
        "stream_interval": settings.stream_interval,
        "scheduling_policy": "priority",
        "disable_log_stats": True,
    }


def _delta(completion: Any, stop_ids: frozenset[int]) -> TokenDelta:
    tokens = tuple(completion.token_ids)
    scores = tuple(
        table[token].logprob for token, table in zip(tokens, completion.logprobs or (), strict=False)
    )
    if completion.finish_reason is None:
        return TokenDelta(tokens, scores)
    if completion.finish_reason == FinishReason.LENGTH.value:
        return TokenDelta(tokens, scores, FinishReason.LENGTH)
    if completion.finish_reason != FinishReason.STOP.value:
        raise EngineDead(f"vLLM ended the request with {completion.finish_reason!r}")
    if tokens and tokens[-1] in stop_ids:
        tokens, scores = tokens[:-1], scores[: len(tokens) - 1]
    return TokenDelta(tokens, scores, FinishReason.STOP)
