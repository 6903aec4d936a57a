"""AsrService.StreamingRecognize: one call is one client of a live session (docs/streaming.md)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from gateway.api.streaming_messages import decoder_for, response, session_options, started, updated
from gateway.audio.live import MAX_MESSAGE_BYTES, LiveDecoder, Pcm
from gateway.session.events import Ended, Failed
from gateway.session.live import LiveSession
from gateway.session.registry import Held, SessionRegistry
from gateway.session.utterance import SAMPLE_RATE
from tandem.asr.v1 import asr_pb2 as pb
from tandem.errors import InvalidRequest, LimitExceeded, TandemError
from tandem.rpc.durations import seconds

_PROGRESS = 1.0
_MAX_SILENCE = 3600.0
# How long after the request stream's end a broken connection may still show.
_BROKEN_SHOWS = 0.05


class Call(Protocol):
    """What is asked of gRPC's context."""

    def done(self) -> bool:
        """Whether the call is over, cancelled included."""


async def streaming_recognize(
    sessions: SessionRegistry, requests: AsyncIterator[pb.StreamingRecognizeRequest], call: Call
) -> AsyncGenerator[pb.StreamingRecognizeResponse, None]:
    """The responses of one call. Raises typed errors; a broken connection leaves the session waiting."""
    config = await _config(requests)
    # Before the session is opened: what is wrong with the format must not leave one behind.
    with contextlib.closing(decoder_for(config)) as decoder:
        held, after = _session(sessions, config)
        client, over = held.clients, False
        pump = Pump(held.session, decoder, requests, call)
        try:
            async with contextlib.aclosing(
                _responses(held, after, pump, interim=_interim(config))
            ) as responses:
                async for message in responses:
                    over = over or message.HasField("ended")
                    yield message
        except TandemError:
            over = True
            raise
        finally:
            if over and client == held.clients:
                sessions.close(held)
            else:
                sessions.lost(held, client)


async def _config(requests: AsyncIterator[pb.StreamingRecognizeRequest]) -> pb.StreamingConfig:
    async for message in requests:
        if message.WhichOneof("payload") != "config":
            raise InvalidRequest.of("config", "must be the first message of the stream")
        return message.config
    raise InvalidRequest.of("config", "the request stream was empty")


def _session(sessions: SessionRegistry, config: pb.StreamingConfig) -> tuple[Held, float | None]:
    if config.HasField("resume_token"):
        return sessions.resume(config.resume_token), seconds(config.resume_from)
    return sessions.open(session_options(config, sessions.partials)), None


def _interim(config: pb.StreamingConfig) -> bool:
    return config.interim_results if config.HasField("interim_results") else True


async def _responses(
    held: Held, after: float | None, pump: Pump, *, interim: bool
) -> AsyncGenerator[pb.StreamingRecognizeResponse, None]:
    """`started`, then updates as messages, progress in between, and the reader's error if it has one."""
    session = held.session
    updates = session.outbox.attach(after)
    told = session.cursors.received
    yield started(session, held.token)
    reading = asyncio.create_task(pump.run())
    following = asyncio.ensure_future(anext(updates, None))
    try:
        while True:
            waiting = {following} if reading.done() else {following, reading}
            await asyncio.wait(waiting, timeout=_PROGRESS, return_when=asyncio.FIRST_COMPLETED)
            if reading.done() and not reading.cancelled():
                reading.result()
            if following.done():
                update = following.result()
                if update is None:
                    return
                if isinstance(update.event, Failed):
                    raise update.event.error
                message = response(update, interim=interim)
                if message is not None:
                    told = update.cursors.received
                    yield message
                if isinstance(update.event, Ended):
                    return
                following = asyncio.ensure_future(anext(updates, None))
            elif session.cursors.received > told:
                # Compared with what was told: more may have been heard since an update was made.
                told = session.cursors.received
                yield updated(session.cursors)
    finally:
        reading.cancel()
        following.cancel()
        # The call's end reads what the client still sends: not while the reader does.
        await asyncio.gather(reading, following, return_exceptions=True)


@dataclass(slots=True)
class Pump:
    """From the request stream into the session, in order; audio waits while the session is behind."""

    session: LiveSession
    decoder: LiveDecoder
    requests: AsyncIterator[pb.StreamingRecognizeRequest]
    call: Call

    async def run(self) -> None:
        """Until the client half-closes, which ends the session; a broken connection does not."""
        async for message in self.requests:
            await self._handle(message)
        await asyncio.sleep(_BROKEN_SHOWS)
        if not self.call.done():
            await self._hear(self.decoder.finish())
            self.session.stop()

    async def _handle(self, message: pb.StreamingRecognizeRequest) -> None:
        kind = message.WhichOneof("payload")
        await self.session.room()  # whatever it is, it may have an answer
        if kind == "audio":
            if len(message.audio) > MAX_MESSAGE_BYTES:
                limit = MAX_MESSAGE_BYTES // 2**20
                raise LimitExceeded(f"a message of live audio holds at most {limit} MiB; send smaller ones")
            await self._hear(self.decoder.push(message.audio))
        elif kind == "silence":
            await self._silence(seconds(message.silence))
        elif kind == "finalize":
            self.session.finalize()
        elif kind == "update":
            self._update(message.update)
        elif kind == "checkpoint":
            self.session.checkpoint(message.checkpoint.id)
        else:
            raise InvalidRequest.of("payload", "config may only be the first message")

    async def _hear(self, pieces: AsyncIterator[Pcm]) -> None:
        async for pcm in pieces:
            await self.session.hear(pcm)

    async def _silence(self, length: float) -> None:
        if not 0 <= length <= _MAX_SILENCE:
            raise InvalidRequest.of("silence", f"must be between 0 and {_MAX_SILENCE:.0f} s")
        total = round(length * SAMPLE_RATE)
        for first in range(0, total, SAMPLE_RATE):
            await self.session.hear(np.zeros(min(SAMPLE_RATE, total - first), dtype=np.int16))
            await asyncio.sleep(0)

    def _update(self, update: pb.UpdateConfig) -> None:
        now = self.session.options.recognize
        language = (update.language or None) if update.HasField("language") else now.language
        hotwords = tuple(update.hotwords) if update.replace_hotwords else now.hotwords
        self.session.update(language, hotwords)
