"""`python -m encoder_service`: load a checkpoint, serve it, drain on SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from typing import Literal, cast

import torch

from encoder_service.batcher import Batcher
from encoder_service.checkpoint import load_checkpoint
from encoder_service.config import EncoderConfig, batching, parse, speaker_directory
from encoder_service.decoder_client import DecoderClient
from encoder_service.describe import describe, tokenizer_files
from encoder_service.draft import Drafter
from encoder_service.encoding_cache import EncodingCache
from encoder_service.engine import EncoderEngine, EngineConfig, choose_dtype
from encoder_service.live_stream import LiveMemory
from encoder_service.loaded import LoadedEncoder
from encoder_service.piece_reader import fixed_executor
from encoder_service.server import SERVICE, EncoderServicer
from encoder_service.speaker import SpeakerEmbedder, load_speaker_model
from encoder_service.speaker_plan import SpeakerConfig
from encoder_service.targets import KeptBudget, TargetHead
from encoder_service.telemetry import load_gauges
from tandem.checkpoint import CheckpointError
from tandem.encoder.v1 import encoder_pb2_grpc
from tandem.rpc.metrics import endpoint
from tandem.rpc.server import ServerConfig, TierServer, run

log = logging.getLogger("tandem.encoder")

_DTYPES = {"bf16": "bfloat16", "fp32": "float32"}


def load_engine(config: EncoderConfig) -> EncoderEngine:
    """The checkpoint on its device, not warmed up yet."""
    device = choose_device(config.device)
    checkpoint = load_checkpoint(config.model, cast(Literal["hf", "ms"], config.hub))
    seconds = batching(config, device.type == "cuda").limits.max_seconds
    settings = EngineConfig(
        device=str(device),
        dtype=_DTYPES.get(config.dtype, config.dtype),
        ctc_top_k=config.ctc_top_k,
        max_segment_seconds=config.max_segment,
        cuda_graphs=config.cuda_graphs,
        graph_seconds=seconds,
    )
    return EncoderEngine(checkpoint, settings, load_speakers(config, device, settings.dtype))


def load_speakers(config: EncoderConfig, device: torch.device, dtype: str) -> SpeakerEmbedder | None:
    """The speaker model on the same device; None when there is to be none."""
    directory = speaker_directory(config.speaker_model)
    if directory is None:
        return None
    window = config.speaker_window
    windows = SpeakerConfig(window=window, shift=config.speaker_shift, piece=2 * window)
    model, executor = load_speaker_model(directory), fixed_executor(device, config.cuda_graphs)
    return SpeakerEmbedder(model, device, speaker_dtype(dtype, device), windows, executor)


def speaker_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """float16 where the encoder is halved too: cosine 0.99999 with float32, of bfloat16 only 0.999."""
    halved = device.type == "cuda" and choose_dtype(dtype, device) is not torch.float32
    return torch.float16 if halved else torch.float32


def choose_device(name: str) -> torch.device:
    """A torch device; "auto" is the first GPU where there is one."""
    if name == "auto":
        name = "cuda:0" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def decoder_client(config: EncoderConfig) -> DecoderClient | None:
    """Of the decoder tier that the flags name; None where they name none."""
    return DecoderClient(config.decoder, config.tls.upstream()) if config.decoder else None


async def serve(config: EncoderConfig) -> bool:
    """Listen at once, load in a thread, be ready when loaded; False when the device failed."""
    server = TierServer(
        ServerConfig(
            config.listen,
            drain_seconds=config.drain_seconds,
            lameduck_seconds=config.lameduck_seconds,
            tls=config.tls.server(),
            plain_health=config.health_listen,
            max_connection_age_seconds=config.max_connection_age or None,
        ),
        [SERVICE],
    )
    servicer = EncoderServicer(
        LiveMemory(config.max_live_seconds), lambda: server.is_stopping, config.receive_timeout
    )
    encoder_pb2_grpc.add_EncoderServiceServicer_to_server(servicer, server.server)
    resources = contextlib.AsyncExitStack()
    failed = asyncio.Event()

    async def start() -> None:
        engine = await asyncio.to_thread(load_engine, config)
        limits = batching(config, engine.device.type == "cuda")
        batcher = await resources.enter_async_context(Batcher(engine, limits))
        await batcher.warm_up()
        resources.enter_context(load_gauges(batcher.load))
        watch = asyncio.create_task(_stop_on_failure(batcher, server, failed), name="encoder-watch")
        resources.callback(watch.cancel)
        decoder = decoder_client(config)
        if decoder is not None:
            resources.push_async_callback(decoder.close)
        files = tokenizer_files(engine.checkpoint)
        servicer.loaded = LoadedEncoder(
            engine,
            batcher,
            EncodingCache(batcher.submit, engine.checkpoint.sha256, config.embedding_cache_mib * 2**20),
            decoder,
            describe(engine, config),
            files,
            KeptBudget(config.max_kept_seconds),
            TargetHead(engine.model.ctc) if engine.model.ctc is not None else None,
            Drafter(engine.checkpoint) if config.drafts else None,
        )

    with endpoint(config.metrics_port):
        await run(server, start, resources.aclose)
    return not failed.is_set()


async def _stop_on_failure(batcher: Batcher, server: TierServer, failed: asyncio.Event) -> None:
    """Turn callers away and drain once the device has failed: only a new process can use it again."""
    await batcher.failed.wait()
    failed.set()
    server.request_stop()


def main() -> int:
    config = parse()
    logging.basicConfig(level=config.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        works = asyncio.run(serve(config))
    except (CheckpointError, OSError, ValueError) as error:
        log.error("%s", error)
        return 1
    logging.shutdown()
    # An orderly exit frees modules and tensors one by one: a second, and a lost device may never answer.
    os._exit(0 if works else 1)


if __name__ == "__main__":
    sys.exit(main())
