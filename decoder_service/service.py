"""The decoder process: listen, load the model, serve, and end with an error when the engine dies."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
from pathlib import Path

import numpy as np

from decoder_service.admission import Admission
from decoder_service.config import DecoderConfig
from decoder_service.engines.base import Engine, GenerationRequest, Prompt, Sampling
from decoder_service.engines.forced import ForcedLengthEngine
from decoder_service.engines.settings import EngineSettings
from decoder_service.server import DecoderServicer, Served
from decoder_service.telemetry import load_gauges
from decoder_service.weights import LanguageModel, language_model
from tandem.checkpoint import resolve_checkpoint
from tandem.decoder.v1 import decoder_pb2, decoder_pb2_grpc
from tandem.rpc.metrics import endpoint
from tandem.rpc.server import ServerConfig, TierServer, run
from tandem.rpc.tensors import WireTensor

log = logging.getLogger("decoder")

SERVICE = decoder_pb2.DESCRIPTOR.services_by_name["DecoderService"].full_name


async def serve(config: DecoderConfig) -> int:
    """Run the tier until it is told to stop. Returns the exit status: 1 when the engine died."""
    return await DecoderTier(config).run()


class DecoderTier:
    """One decoder process. Made inside the event loop that it runs in."""

    def __init__(self, config: DecoderConfig) -> None:
        self._config = config
        self._engine: Engine | None = None
        self._failure: str | None = None
        self._watch: asyncio.Task[None] | None = None
        self._gauges = contextlib.ExitStack()
        self._servicer = DecoderServicer(config.receive_timeout)
        self._server = TierServer(
            ServerConfig(
                listen=config.address,
                drain_seconds=config.drain_seconds,
                lameduck_seconds=config.lameduck_seconds,
                tls=config.tls.server(),
                plain_health=config.health_listen,
                max_connection_age_seconds=config.max_connection_age or None,
            ),
            [SERVICE],
        )
        decoder_pb2_grpc.add_DecoderServiceServicer_to_server(self._servicer, self._server.server)

    async def run(self) -> int:
        with endpoint(self._config.metrics_port):
            await run(self._server, self._load, self._close)
        return 1 if self._failure else 0

    async def _load(self) -> None:
        config = self._config
        self._engine, model = await load_engine(config)
        info = self._engine.info
        log.info("%s %s, %s, %d tokens", info.engine, info.engine_version, info.dtype, info.max_model_len)
        admission = Admission(info.max_num_seqs, config.max_waiting_requests)
        name = Path(config.model).name if Path(config.model).is_dir() else config.model
        self._servicer.serve(Served(self._engine, name, model.checkpoint_sha256, admission))
        self._gauges.enter_context(load_gauges(self._engine.load, admission, self._servicer.rate))
        self._watch = asyncio.create_task(self._stop_when_dead(self._engine))

    async def _stop_when_dead(self, engine: Engine) -> None:
        """A dead engine cannot be revived in place: leave, so that the orchestrator starts a new process."""
        self._failure = await engine.wait_dead()
        log.error("the engine died: %s", self._failure)
        self._servicer.serve(None)
        await self._server.not_ready()
        self._server.request_stop()

    async def _close(self) -> None:
        self._gauges.close()
        if self._watch is not None:
            self._watch.cancel()
        if self._engine is not None:
            await self._engine.close()


async def load_engine(config: DecoderConfig) -> tuple[Engine, LanguageModel]:
    """A started engine that has answered once, and the model that it serves. Raises CheckpointError."""
    checkpoint = await asyncio.to_thread(resolve_checkpoint, config.model, config.hub)
    model = await asyncio.to_thread(language_model, checkpoint)
    engine = create_engine(config.engine, config.engine_settings(model.directory))
    if config.forced_tokens_per_embedding:
        engine = ForcedLengthEngine(engine, config.forced_tokens_per_embedding)
    try:
        await engine.start()
        await warm_up(engine)
    except BaseException:
        await engine.close()
        raise
    return engine, model


async def warm_up(engine: Engine) -> None:
    """The first request loads kernels and fills pools, seconds with vLLM: paid before readiness."""
    embeddings = WireTensor.of(np.zeros((8, engine.info.hidden_size), np.float32))
    request = GenerationRequest(
        "warm-up", Prompt(((0,), embeddings, (0,))), Sampling(max_tokens=2, ignore_eos=True)
    )
    async for _ in engine.generate(request):
        continue


def create_engine(name: str, settings: EngineSettings) -> Engine:
    """The engine by its flag; imports only that one."""
    if name == "auto":
        name = "vllm" if importlib.util.find_spec("vllm") and _sees_gpu(settings.device) else "transformers"
    if name == "vllm":
        from decoder_service.engines.vllm import VllmEngine

        return VllmEngine(settings)
    from decoder_service.engines.transformers import TransformersEngine

    return TransformersEngine(settings)


def _sees_gpu(device: str) -> bool:
    """A GPU that computes in bfloat16: on older ones vLLM is slow or wrong, where it starts at all."""
    import torch

    if device == "cpu" or not torch.cuda.is_available():
        return False
    return torch.cuda.get_device_capability(None if device == "auto" else device) >= (8, 0)
