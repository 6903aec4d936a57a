"""One segment's exchange with an encoder: audio and prompt out, tokens in, and what aligning a text needs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.audio.types import SAMPLE_RATE, Samples
from gateway.backends.features import Features
from gateway.backends.wire import audio_bytes, audio_config, audio_messages, posteriors_of, voices_of
from gateway.speakers.types import SegmentEmbeddings
from gateway.text.posteriors import CtcPosteriors, TokenLogProbs
from gateway.text.prompt import Prompt
from tandem.decoder.v1 import decoder_pb2
from tandem.encoder.v1 import encoder_pb2 as pb
from tandem.errors import InternalError, Unavailable
from tandem.rpc.durations import seconds
from tandem.rpc.tensors import TensorAssembler

_TARGETS = "target_log_probs"
_MAX_TARGET_BYTES = 256 * 2**20

TokenIds = tuple[int, ...]
NameTargets = Callable[[TokenIds, CtcPosteriors], NDArray[np.int64]]
"""The CTC tokens, distinct and ascending, whose exact log probabilities an answer calls for; often none."""


@dataclass(frozen=True, slots=True)
class SegmentRequest:
    """One segment to transcribe: samples [n] at 16 kHz and the prompt around them.

    `speakers` asks for the voices of its windows too. `name_targets` is asked once the tokens are there, if
    the encoder can answer it; before that, `on_tokens` is waited for where the samples are a live session's.
    `urgent` ones go before others in the tiers' queues.
    """

    samples: Samples
    prompt: Prompt
    max_tokens: int
    request_id: str
    speakers: bool = False
    name_targets: NameTargets | None = None
    on_tokens: OnTokens | None = None
    urgent: bool = False


@dataclass(frozen=True, slots=True)
class SegmentResult:
    """Tokens of one segment, its CTC posteriors where the model has them, and seconds per stage.

    `voices`, where asked for, have times from the start of the segment. `targets` are exact log
    probabilities of the tokens that were named; None where none were, or the encoder had no memory for it.
    """

    token_ids: TokenIds
    num_embeds: int
    posteriors: CtcPosteriors | None
    encode_queue: float
    encode: float
    decode: float
    voices: SegmentEmbeddings | None = None
    speakers: float = 0.0
    targets: TokenLogProbs | None = None


OnTokens = Callable[[SegmentResult], Awaitable[None]]
"""Gets a result before its targets are named."""


def transcribe_config(request: SegmentRequest, *, ctc: bool) -> pb.TranscribeConfig:
    """What is asked of the tiers for the segment, but for its audio."""
    return pb.TranscribeConfig(
        request_id=request.request_id,
        ctc=pb.CTC_MODE_COMPACT if ctc else pb.CTC_MODE_NONE,
        prefix_token_ids=request.prompt.prefix_token_ids,
        suffix_token_ids=request.prompt.suffix_token_ids,
        sampling=decoder_pb2.SamplingParams(max_tokens=request.max_tokens),
        speaker_embeds=request.speakers,
        final_only=True,
        urgent=request.urgent,
    )


def token_log_probs(
    token_ids: NDArray[np.int64], columns: NDArray[np.float32], posteriors: CtcPosteriors
) -> TokenLogProbs:
    """Exact log probabilities [T, n + 1] as they came, the blank last; InternalError if they do not fit."""
    if columns.shape != (posteriors.num_frames, len(token_ids) + 1) or not np.isfinite(columns).all():
        raise InternalError("the encoder sent log probabilities that do not fit the targets")
    return TokenLogProbs(token_ids, columns[:, :-1], columns[:, -1])


class SegmentCall:
    """The two directions of one call. `on_encoded` is called when only the decoder has work left."""

    def __init__(
        self, request: SegmentRequest, features: Features, on_encoded: Callable[[], None], *, ctc: bool
    ) -> None:
        self._request, self._ctc, self._on_encoded = request, ctc, on_encoded
        self._whole = features.takes_whole_audio
        self._name_targets = request.name_targets if ctc and features.aligns_targets else None
        self._named: asyncio.Future[NDArray[np.int64]] = asyncio.get_running_loop().create_future()
        self._chunks = TensorAssembler(_MAX_TARGET_BYTES)
        self._tokens: list[int] = []
        self._num_embeds = 0
        self._posteriors: CtcPosteriors | None = None
        self._voices: SegmentEmbeddings | None = None

    async def requests(self) -> AsyncIterator[pb.TranscribeRequest]:
        """What is sent."""
        request = self._request
        config = transcribe_config(request, ctc=self._ctc)
        config.audio.CopyFrom(audio_config(request.samples))
        if self._whole:
            config.whole_audio = audio_bytes(request.samples)
            config.targets_follow = self._name_targets is not None
        yield pb.TranscribeRequest(config=config)
        if not self._whole:
            for message in audio_messages(request.samples):
                yield message
            if self._name_targets is not None:
                yield pb.TranscribeRequest(audio_end=pb.AudioEnd())
        if self._name_targets is not None:
            named = await self._named
            if len(named):
                yield pb.TranscribeRequest(targets=pb.AlignTargets(token_ids=named.tolist()))

    async def result(self, responses: AsyncIterable[pb.TranscribeResponse]) -> SegmentResult:
        """What came back. Raises Unavailable when the stream ends without its timing."""
        timing: pb.TranscribeTiming | None = None
        async for response in responses:
            kind = response.WhichOneof("payload")
            if kind == "header":
                self._num_embeds = response.header.num_embeds
                self._on_encoded()
            elif kind == "compact_ctc":
                self._posteriors = posteriors_of(response.compact_ctc)
            elif kind == "speakers":
                self._hear(response.speakers)
            elif kind == "tokens":
                self._read(response.tokens)
            elif kind == "chunk":
                self._chunks.add(response.chunk)
            elif kind == "timing":
                timing = response.timing
            elif kind == "answer":
                timing = self._read_all(response.answer)
        if timing is None:
            raise Unavailable("the encoder ended the call without a result")
        return self._finished(timing)

    def _read_all(self, answer: pb.TranscribeAnswer) -> pb.TranscribeTiming:
        if answer.HasField("compact_ctc"):
            self._posteriors = posteriors_of(answer.compact_ctc)
        if answer.HasField("speakers"):
            self._hear(answer.speakers)
        self._read(answer.tokens)
        return answer.timing

    def _hear(self, speakers: pb.SpeakerEmbeddings) -> None:
        self._voices = voices_of(speakers, len(self._request.samples) / SAMPLE_RATE)

    def _read(self, tokens: decoder_pb2.GenerateResponse) -> None:
        """Adds tokens; after the last the targets are named."""
        self._tokens.extend(tokens.token_ids)
        if not tokens.HasField("result"):
            return
        named = np.empty(0, dtype=np.int64)
        if self._name_targets is not None and self._posteriors is not None:
            named = self._name_targets(tuple(self._tokens), self._posteriors)
        self._named.set_result(named)

    def _finished(self, timing: pb.TranscribeTiming) -> SegmentResult:
        return SegmentResult(
            token_ids=tuple(self._tokens),
            num_embeds=self._num_embeds,
            posteriors=self._posteriors,
            encode_queue=seconds(timing.encode.queue),
            encode=seconds(timing.encode.frontend) + seconds(timing.encode.compute),
            decode=seconds(timing.decoder_round_trip),
            voices=self._voices,
            speakers=seconds(timing.encode.speakers),
            targets=self._targets(),
        )

    def _targets(self) -> TokenLogProbs | None:
        if self._posteriors is None or _TARGETS not in self._chunks.names():
            return None
        columns = self._chunks.take(_TARGETS).float32()
        return token_log_probs(self._named.result(), columns, self._posteriors)
