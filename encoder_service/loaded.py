"""A loaded checkpoint with what the service needs beside it, down to the tokens of one encoded segment."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from encoder_service.batcher import Batcher
from encoder_service.decoder_client import DecoderClient, DecodeRequest, ignore
from encoder_service.draft import Drafter
from encoder_service.encoding_cache import EncodingCache
from encoder_service.engine import EncoderEngine
from encoder_service.messages import EncodedAudio
from encoder_service.targets import KeptBudget, TargetHead
from tandem.decoder.v1 import decoder_pb2
from tandem.encoder.v1 import encoder_pb2 as pb
from tandem.errors import CapabilityMissing, InternalError
from tandem.rpc.durations import duration


@dataclass(frozen=True, slots=True)
class LoadedEncoder:
    """What the service answers with once the checkpoint is on the device."""

    engine: EncoderEngine
    batcher: Batcher
    encodings: EncodingCache
    decoder: DecoderClient | None
    info: pb.GetModelInfoResponse
    tokenizer_files: tuple[Path, ...]
    keep: KeptBudget
    targets: TargetHead | None
    drafter: Drafter | None = None

    def draft(self, audio: EncodedAudio) -> tuple[int, ...]:
        """What the answer for a segment probably is; nothing without a drafter or compact posteriors."""
        compact = audio.compact
        return self.drafter.draft(compact) if self.drafter is not None and compact is not None else ()

    async def decode(
        self,
        config: pb.TranscribeConfig,
        audio: EncodedAudio,
        timing: pb.TranscribeTiming,
        timeout: float | None = None,
        on_sent: Callable[[], None] = ignore,
    ) -> AsyncIterator[decoder_pb2.GenerateResponse]:
        """The decoder's answers for an encoded segment; adds its part to `timing` after the last one.

        `on_sent` is called when the prompt is on its way, more than once where it has to be sent again.

        Raises CapabilityMissing without a decoder, and the decoder's own errors.
        """
        embeds = audio.embeds
        if self.decoder is None:
            raise CapabilityMissing("this encoder was started without a decoder")
        if embeds is None:
            raise InternalError("the segment was encoded without embeddings")
        request = DecodeRequest(
            request_id=config.request_id or uuid.uuid4().hex[:16],
            prefix_token_ids=tuple(config.prefix_token_ids),
            embeds=embeds,
            suffix_token_ids=tuple(config.suffix_token_ids),
            sampling=config.sampling,
            model_hash=self.info.model_hash,
            final_only=config.final_only,
            draft_token_ids=self.draft(audio),
            urgent=config.urgent,
            on_sent=on_sent,
        )
        started = time.perf_counter()
        async for tokens in self.decoder.generate(request, timeout=timeout):
            if tokens.HasField("result"):
                timing.decode.CopyFrom(tokens.result.timing)
            yield tokens
        timing.decoder_round_trip.CopyFrom(duration(time.perf_counter() - started))
        timing.embed_bytes = embeds.array.nbytes

    async def whole_answer(
        self,
        config: pb.TranscribeConfig,
        audio: EncodedAudio,
        timing: pb.TranscribeTiming,
        timeout: float | None = None,
        on_sent: Callable[[], None] = ignore,
    ) -> decoder_pb2.GenerateResponse:
        """The same in one message."""
        whole = decoder_pb2.GenerateResponse()
        async for tokens in self.decode(config, audio, timing, timeout, on_sent):
            whole.MergeFrom(tokens)
        return whole
