"""Stand-ins for what a GPU does, so that a machine without one shows what everything around it costs.

    python -m benchmarks.instant decoder [--answer-after SECONDS] --model DIR --listen unix:PATH
    python -m benchmarks.instant encoder --model DIR --listen unix:PATH --decoder unix:PATH

Both are the tiers as they are served, flags included; only the network of the encoder and the engine of the
decoder answer at once: embeddings and posteriors of the right shapes, three tokens of a fixed text for each
second of audio. With --answer-after whole answers take about so long, each a little more or less.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import sys
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

import decoder_service.config
import decoder_service.service
import encoder_service.__main__ as encoder_main
import encoder_service.config
from decoder_service.__main__ import quick_loop
from decoder_service.engines.base import EngineInfo, EngineLoad, FinishReason, GenerationRequest, TokenDelta
from decoder_service.engines.model_facts import read_model_facts
from decoder_service.engines.settings import EngineSettings
from encoder_service.checkpoint import load_checkpoint
from encoder_service.engine import EncoderEngine, EngineConfig
from encoder_service.messages import CompactCtc, CtcOutput, EncodedAudio, EncodeItem, KeptCtc, StageTimes
from gateway.text.budget import DEFAULT_TOKENS_PER_SECOND, MIN_TOKENS
from tandem.rpc.tensors import WireTensor

TOKENS_PER_SECOND = 3.0
# Long enough that a segment of a minute does not look like a loop to the gateway.
_TEXT = (
    "Good morning everyone and thank you for joining so early. Before we begin, has everybody seen the "
    "latest figures? Yes, sales went up by twelve percent in March, which is better than we expected at "
    "the start of the year. The new office opens on the third of June, and the team in Hamburg will move "
    "first; others follow during the summer. Maria asked whether the old contracts can be kept until "
    "autumn. I would rather not decide that today, because the lawyers have not answered and the bank "
    "wants another guarantee. "
)


class InstantDecoder:
    """A decoder engine without a model: one token after the other, or all at once where that is asked for.

    `seconds` is how long the latter take.
    """

    def __init__(self, settings: EngineSettings, seconds: float = 0.0) -> None:
        facts = read_model_facts(settings.model)
        self.info = EngineInfo(
            engine="instant",
            engine_version="0",
            hidden_size=facts.hidden_size,
            vocab_size=facts.vocab_size,
            max_model_len=min(settings.max_model_len, facts.max_positions),
            max_num_seqs=settings.max_num_seqs or 512,
            dtype="bfloat16",
            eos_token_ids=facts.eos_token_ids,
        )
        tokenizer = Tokenizer.from_file(str(settings.model / "tokenizer.json"))
        self._text = tuple(tokenizer.encode(_TEXT, add_special_tokens=False).ids)
        self._running = 0
        self._seconds = seconds

    async def start(self) -> None:
        """There is nothing to load."""

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[TokenDelta, None]:
        budget = request.sampling.max_tokens - MIN_TOKENS
        count = max(1, int(budget * TOKENS_PER_SECOND / DEFAULT_TOKENS_PER_SECOND))
        tokens = tuple(itertools.islice(itertools.cycle(self._text), count))
        self._running += 1
        try:
            if request.final_only:
                if self._seconds:
                    await asyncio.sleep(self._seconds * random.uniform(2 / 3, 4 / 3))
                yield TokenDelta(tokens, finish=FinishReason.STOP)
                return
            for token in tokens[:-1]:
                yield TokenDelta((token,))
                await asyncio.sleep(0)
            yield TokenDelta(tokens[-1:], finish=FinishReason.STOP)
        finally:
            self._running -= 1

    def load(self) -> EngineLoad:
        return EngineLoad(self._running, 0)

    async def wait_dead(self) -> str:
        return await asyncio.Event().wait() and ""

    async def close(self) -> None:
        """There is nothing to free."""


@dataclass(frozen=True)
class InstantBatch:
    """A launched batch that is done."""

    results: list[EncodedAudio]

    def collect(self) -> list[EncodedAudio]:
        return self.results


class InstantEncoder(EncoderEngine):
    """The encoder without its networks: zeros as embeddings, posteriors that hear one text token a frame."""

    def launch(self, items: Sequence[EncodeItem]) -> InstantBatch:
        return InstantBatch([self._answer(item, len(items)) for item in items])

    def _answer(self, item: EncodeItem, batch: int) -> EncodedAudio:
        frames = self.frontend.frame_count(item.num_samples)
        shape = (self.embed_count(frames), self.checkpoint.config.adaptor.llm_dim)
        compact = self._posteriors(frames) if item.ctc is CtcOutput.COMPACT else None
        return EncodedAudio(
            num_frames=frames,
            num_embeds=shape[0],
            embeds=WireTensor.bfloat16(np.zeros(shape, np.uint16)) if item.embeds else None,
            compact=compact,
            dense=None,
            encoder_out=None,
            times=StageTimes(0.0, 0.0, 0.0, 0.0),
            batch_size=batch,
            kept=self._kept(compact) if item.keep_ctc and compact is not None else None,
        )

    def _kept(self, compact: CompactCtc) -> KeptCtc:
        assert self.model.ctc is not None
        shape = (len(compact.blank_log_probs), self.model.ctc.ctc_lo.in_features)
        return KeptCtc(np.zeros(shape, np.float16), compact.blank_log_probs)

    def _posteriors(self, frames: int) -> CompactCtc:
        config, top_k = self.checkpoint.config.ctc, self.config.ctc_top_k
        assert config is not None
        rng = np.random.default_rng(frames)
        return CompactCtc(
            top_ids=rng.integers(0, 256, (frames, top_k), dtype=np.int32),
            top_log_probs=np.tile(-np.arange(1, top_k + 1, dtype=np.float32), (frames, 1)),
            blank_log_probs=np.full(frames, -0.7, np.float32),
            remainder_log_probs=np.full(frames, -5.0, np.float32),
            vocab_size=config.vocab_size,
            blank_id=config.blank_id,
        )


def instant_encoder(config: encoder_service.config.EncoderConfig) -> EncoderEngine:
    """What encoder_service loads, with nothing to compute."""
    settings = EngineConfig(device="cpu", max_segment_seconds=config.max_segment)
    return InstantEncoder(load_checkpoint(config.model), settings)


def serve_decoder(arguments: Sequence[str]) -> None:
    """decoder_service, whatever engine its flags ask for."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--answer-after", type=float, default=0.0)
    own, flags = parser.parse_known_args(arguments)

    def instant_decoder(name: str, settings: EngineSettings) -> InstantDecoder:
        return InstantDecoder(settings, own.answer_after)

    decoder_service.service.create_engine = instant_decoder
    with asyncio.Runner(loop_factory=quick_loop()) as runner:
        runner.run(decoder_service.service.serve(decoder_service.config.parse(flags)))


def main() -> None:
    tier, *arguments = sys.argv[1:]
    if tier == "decoder":
        serve_decoder(arguments)
    else:
        encoder_main.load_engine = instant_encoder
        asyncio.run(encoder_main.serve(encoder_service.config.parse(arguments)))


if __name__ == "__main__":
    main()
