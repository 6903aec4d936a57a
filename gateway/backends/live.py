"""A live session's line to one encoder: each sample goes there once, spans of it are asked for many times."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol

import grpc
import grpc.aio
import numpy as np
from google.rpc import status_pb2
from numpy.typing import NDArray

from gateway.audio.types import SAMPLE_RATE, Samples
from gateway.backends.features import Features
from gateway.backends.segment_call import (
    SegmentRequest,
    SegmentResult,
    token_log_probs,
    transcribe_config,
)
from gateway.backends.wire import posteriors_of
from tandem.encoder.v1 import encoder_pb2 as pb
from tandem.encoder.v1 import encoder_pb2_grpc
from tandem.errors import TandemError, Unavailable
from tandem.rpc.durations import seconds
from tandem.rpc.status import from_rpc_error, from_status
from tandem.rpc.tensors import CHUNK_BYTES, from_message

MIN_SAMPLES = 400
"""Shorter spans make no frame."""
_CHECK_SECONDS = 0.25


class Audio(Protocol):
    """A segment's audio from sample `start` of its stream on."""

    @property
    def start(self) -> int: ...

    def read(self, start: int, end: int) -> Samples:
        """Samples [start, end) of the stream, int16."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """Samples [start, end) of the stream, which belong to `segment`; `audio` has all of it up to `end`."""

    segment: int
    audio: Audio
    start: int
    end: int


class LineEnd(Enum):
    """Why a line is over. LOST: the encoder cannot be reached. STUCK: it does not encode."""

    CLOSED = "closed"
    LOST = "lost"
    STUCK = "stuck"


class Place(Protocol):
    """Where a line leads, as whoever chose the encoder sees it."""

    def sending(self, seconds: float) -> contextlib.AbstractContextManager[Callable[[], None]]:
        """Accounts for a span of so many seconds while it is out; call the function once it is encoded."""
        ...

    def is_stale(self) -> bool:
        """Whether another encoder should be preferred from now on."""
        ...

    def is_overdue(self, waited: float) -> bool:
        """Whether what has not been encoded for so many seconds should be asked of another encoder."""
        ...

    def ended(self, why: LineEnd) -> None:
        """The line is over."""
        ...


class OnlyPlace:
    """The only encoder there is: it is waited for."""

    def sending(self, seconds: float) -> contextlib.AbstractContextManager[Callable[[], None]]:
        return contextlib.nullcontext(lambda: None)

    def is_stale(self) -> bool:
        return False

    def is_overdue(self, waited: float) -> bool:
        return False

    def ended(self, why: LineEnd) -> None:
        return


@dataclass(slots=True)
class _Encoding:
    """A span that is out and not known to be encoded: since when, and whom to tell."""

    since: float
    encoded: Callable[[], None]


class LiveLink:
    """One call of TranscribeLive. Made inside the event loop; `close` ends it."""

    def __init__(
        self, stub: encoder_pb2_grpc.EncoderServiceAsyncStub, features: Features, place: Place
    ) -> None:
        self._call = stub.TranscribeLive()
        self._features, self._place = features, place
        self._requests: asyncio.Queue[pb.TranscribeLiveRequest] = asyncio.Queue()
        self._answers: dict[int, asyncio.Future[pb.TranscribeLiveResponse]] = {}
        self._encoding: dict[int, _Encoding] = {}
        self._check: asyncio.TimerHandle | None = None
        self._sent: dict[int, int] = {}
        self._next_id = 1
        self._ended = self._is_left = False
        self._tasks = (asyncio.create_task(self._write()), asyncio.create_task(self._read()))

    @property
    def is_usable(self) -> bool:
        """Whether new segments should go here."""
        return not self._ended and not self._place.is_stale()

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is being asked."""
        return not self._answers

    async def path(self, part: Part, *, urgent: bool = False) -> pb.CtcPath:
        """What the CTC branch alone hears in a part of a segment; `urgent` ones go before others.

        This and `transcribe` raise the encoder's own typed error, and Unavailable when the line breaks.
        Cancelling gives the part up.
        """
        with self._asked(part, pb.TranscribeConfig(ctc_only=True, urgent=urgent)) as number:
            return (await self._answer(number)).path

    async def transcribe(self, part: Part, request: SegmentRequest, *, ctc: bool) -> SegmentResult:
        """`request` for a part of a segment; its own samples stay where they are."""
        name_targets = request.name_targets if ctc and self._features.aligns_targets else None
        config = transcribe_config(request, ctc=ctc)
        with self._asked(part, config, targets_follow=name_targets is not None) as number:
            result = live_result(await self._answer(number))
            if request.on_tokens is not None:
                await request.on_tokens(result)
            if name_targets is None or result.posteriors is None:
                return result
            named = name_targets(result.token_ids, result.posteriors)
            try:
                columns = await self._log_probs(number, named)
            except Unavailable:
                # The line broke; the text is there, and its word times are estimates.
                return result
            if columns is None:
                return result
            return replace(result, targets=token_log_probs(named, columns, result.posteriors))

    async def _log_probs(self, number: int, named: NDArray[np.int64]) -> NDArray[np.float32] | None:
        """Of the targets of a span, [T, n + 1]; None where there are none, or the encoder kept nothing."""
        self._expect(number)
        targets = pb.LiveTargets(id=number, token_ids=named.tolist())
        self._requests.put_nowait(pb.TranscribeLiveRequest(targets=targets))
        if not len(named):
            return None
        answer = await self._answer(number)
        if not answer.HasField("target_log_probs"):
            return None
        return from_message(answer.target_log_probs, "target_log_probs").float32()

    @contextlib.contextmanager
    def _asked(
        self, part: Part, config: pb.TranscribeConfig, *, targets_follow: bool = False
    ) -> Iterator[int]:
        """Asks for a part; the number under which it is answered."""
        number, self._next_id = self._next_id, self._next_id + 1
        self._expect(number)
        base = part.audio.start
        reports = self._features.reports_encoded and not config.ctc_only
        span = pb.LiveSpan(
            id=number,
            start=part.start - base,
            end=part.end - base,
            config=config,
            targets_follow=targets_follow,
            report_encoded=reports,
        )
        request = pb.TranscribeLiveRequest(segment=part.segment, audio=self._new_audio(part), span=span)
        self._requests.put_nowait(request)
        try:
            with self._place.sending((part.end - part.start) / SAMPLE_RATE) as encoded:
                if reports or config.ctc_only:
                    self._watch(number, encoded)
                yield number
        except asyncio.CancelledError:
            if not self._ended:
                self._requests.put_nowait(pb.TranscribeLiveRequest(cancel=[number]))
            raise
        finally:
            del self._answers[number]
            self._encoding.pop(number, None)
            if self._is_left and self.is_quiet:
                self.close()

    def _watch(self, number: int, encoded: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        self._encoding[number] = _Encoding(loop.time(), encoded)
        if self._check is None:
            self._check = loop.call_later(_CHECK_SECONDS, self._check_encoding)

    def _check_encoding(self) -> None:
        """Gives the line up when the encoder takes too long and there is another."""
        loop = asyncio.get_running_loop()
        self._check = None
        if self._ended or not self._encoding:
            return
        waited = loop.time() - min(encoding.since for encoding in self._encoding.values())
        if self._place.is_overdue(waited):
            self._end(Unavailable(f"the encoder has encoded nothing for {waited:.1f} s"), LineEnd.STUCK)
        else:
            self._check = loop.call_later(_CHECK_SECONDS, self._check_encoding)

    def _note_encoded(self, number: int) -> None:
        encoding = self._encoding.pop(number, None)
        if encoding is not None:
            encoding.encoded()

    def _expect(self, number: int) -> None:
        if self._ended:
            raise Unavailable("the line to the encoder is closed")
        self._answers[number] = asyncio.get_running_loop().create_future()

    async def _answer(self, number: int) -> pb.TranscribeLiveResponse:
        return await self._answers[number]

    def release(self, segment: int) -> None:
        """Nothing more will be asked of `segment`."""
        if self._sent.pop(segment, None) is not None and not self._ended:
            self._requests.put_nowait(pb.TranscribeLiveRequest(release=[segment]))

    def leave(self) -> None:
        """Nothing more will be asked: close as soon as what is being asked is answered."""
        self._is_left = True
        if self.is_quiet:
            self.close()

    def close(self) -> None:
        """Give up what is being asked."""
        for task in self._tasks:
            task.cancel()
        self._end(Unavailable("the line to the encoder was closed"))

    def _new_audio(self, part: Part) -> bytes:
        """What the encoder has not got of the part's segment; all but the end of it is sent here."""
        sent = self._sent.get(part.segment, part.audio.start)
        if sent >= part.end:
            return b""
        self._sent[part.segment] = part.end
        data = part.audio.read(sent, part.end).tobytes()
        while len(data) > CHUNK_BYTES:
            piece, data = data[:CHUNK_BYTES], data[CHUNK_BYTES:]
            self._requests.put_nowait(pb.TranscribeLiveRequest(segment=part.segment, audio=piece))
        return data

    async def _write(self) -> None:
        try:
            while True:
                await self._call.write(await self._requests.get())
        except (grpc.RpcError, asyncio.InvalidStateError):
            # The call is over; reading it tells why.
            return

    async def _read(self) -> None:
        error: TandemError = Unavailable("the encoder closed the line")
        why = LineEnd.CLOSED
        try:
            async for response in self._call:
                self._settle(response)
        except grpc.RpcError as failure:
            error = from_rpc_error(failure)
            why = LineEnd.LOST if isinstance(error, Unavailable) else why
        finally:
            # In any case: a channel that is closed meanwhile ends the call with CancelledError.
            self._end(error, why)

    def _settle(self, response: pb.TranscribeLiveResponse) -> None:
        self._note_encoded(response.id)
        if response.encoded:
            return
        answer = self._answers.get(response.id)
        if answer is None or answer.done():
            return
        if response.error:
            answer.set_exception(from_status(status_pb2.Status.FromString(response.error)))
        else:
            answer.set_result(response)

    def _end(self, error: TandemError, why: LineEnd = LineEnd.CLOSED) -> None:
        if self._ended:
            return
        self._ended = True
        self._place.ended(why)
        self._call.cancel()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(error)


class LiveLine:
    """A session's link to whichever encoder it is at; it moves when that one goes. `connect` finds one."""

    def __init__(self, connect: Callable[[], LiveLink]) -> None:
        self._connect = connect
        self._link: LiveLink | None = None
        self._leaving: list[LiveLink] = []

    def current(self) -> LiveLink:
        """The link for what is asked next; to another encoder, a segment's audio is sent anew."""
        if self._link is not None and self._link.is_usable:
            return self._link
        # What is being asked at the old place is still answered there.
        for link in self._links():
            link.leave()
        self._leaving, self._link = [link for link in self._links() if not link.is_quiet], None
        self._link = self._connect()
        return self._link

    def release(self, segment: int) -> None:
        if self._link is not None:
            self._link.release(segment)

    def close(self) -> None:
        for link in self._links():
            link.close()
        self._link = None

    def _links(self) -> Sequence[LiveLink]:
        return [*self._leaving, *([self._link] if self._link is not None else [])]


def live_result(answer: pb.TranscribeLiveResponse) -> SegmentResult:
    """A part's transcription."""
    timing = answer.timing
    return SegmentResult(
        token_ids=tuple(answer.token_ids),
        num_embeds=answer.num_embeds,
        posteriors=posteriors_of(answer.compact_ctc) if answer.HasField("compact_ctc") else None,
        encode_queue=seconds(timing.encode.queue),
        encode=seconds(timing.encode.frontend) + seconds(timing.encode.compute),
        decode=seconds(timing.decoder_round_trip),
    )
