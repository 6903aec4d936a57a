"""The encoder with the decoder's engine in its own process: Tandem without the hop between its tiers.

    python -m benchmarks.one_tier --model DIR --listen unix:PATH --decoder "FLAGS OF decoder_service" [...]

Everything is as the two services have it, but where the encoder would call the decoder it calls the engine:
no message is made, sent or read, and one event loop does the work of two.
"""

from __future__ import annotations

import asyncio
import shlex
import sys
import time
from collections.abc import AsyncIterator

import decoder_service.config
import encoder_service.__main__ as encoder_main
import encoder_service.config
from decoder_service.__main__ import quick_loop
from decoder_service.engines.base import (
    Engine,
    FinishReason,
    GenerationRequest,
    Prompt,
    Sampling,
    joined,
)
from decoder_service.server import FINISH
from decoder_service.service import load_engine
from encoder_service.decoder_client import DecodeRequest
from tandem.decoder.v1 import decoder_pb2 as pb
from tandem.rpc.durations import duration


class EngineAsDecoder:
    """In the place of DecoderClient."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def generate(
        self, request: DecodeRequest, timeout: float | None = None
    ) -> AsyncIterator[pb.GenerateResponse]:
        """One message with all tokens, for greedy requests."""
        began = time.monotonic()
        prompt = Prompt((request.prefix_token_ids, request.embeds, request.suffix_token_ids))
        asked = GenerationRequest(
            request.request_id,
            prompt,
            Sampling(max_tokens=request.sampling.max_tokens),
            final_only=True,
            urgent=request.urgent,
        )
        whole = await joined(self._engine.generate(asked))
        answer = pb.GenerateResponse(token_ids=whole.token_ids)
        answer.result.finish_reason = FINISH[whole.finish or FinishReason.STOP]
        answer.result.timing.total.CopyFrom(duration(time.monotonic() - began))
        yield answer

    async def close(self) -> None:
        await self._engine.close()


async def serve(config: encoder_service.config.EncoderConfig) -> None:
    """The encoder tier, with the engine that the decoder's flags ask for."""
    engine, _ = await load_engine(decoder_service.config.parse(shlex.split(config.decoder)))

    def engine_as_decoder(config: encoder_service.config.EncoderConfig) -> EngineAsDecoder:
        return EngineAsDecoder(engine)

    encoder_main.decoder_client = engine_as_decoder  # type: ignore[assignment]
    await encoder_main.serve(config)


def main() -> None:
    with asyncio.Runner(loop_factory=quick_loop()) as runner:
        runner.run(serve(encoder_service.config.parse(sys.argv[1:])))


if __name__ == "__main__":
    main()
