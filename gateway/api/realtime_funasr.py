"""The real-time WebSocket service of the FunASR vLLM guide, section 6: START, audio, STOP on port 10095."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from gateway.api.auth import check_handshake
from gateway.api.forms import split_terms
from gateway.api.realtime_defaults import RealtimeDefaults
from gateway.api.realtime_funasr_results import Results
from gateway.audio.live import RawDecoder
from gateway.audio.types import RawEncoding
from gateway.keys import KeyRing
from gateway.service import GatewayService
from gateway.session.config import SessionOptions
from gateway.session.events import Ended, EndReason, Failed, Refined
from gateway.session.live import LiveSession
from gateway.session.registry import Held
from gateway.text.replace import parse_replacements
from tandem.convert import check_terms
from tandem.errors import InvalidRequest, TandemError
from tandem.results import RecognizeOptions
from tandem.rpc.security import ServerTls

log = logging.getLogger("tandem.gateway.realtime")

_TRUE = frozenset(("true", "1", "on", "yes"))
_MAX_REPLACEMENTS = 16_384
_MAX_MESSAGE = 10 * 1024 * 1024
_PING_SECONDS = 20
_PROGRESS = 1.0
_GOING_AWAY = 1001
_INTERNAL = 1011
_NOT_ACTIVE = "Session is not active; send START first"
_SERVER_MODE = "COMMIT requires --endpoint-mode client"


class Socket(Protocol):
    """What a connection needs of a WebSocket; sending to one that is closed raises ConnectionClosed."""

    def __aiter__(self) -> AsyncIterator[str | bytes]: ...

    async def send(self, message: str) -> None: ...

    async def close(self, code: int, reason: str) -> None: ...


class Connection:
    """One client: its settings outlive START, everything else begins anew with it."""

    def __init__(self, socket: Socket, service: GatewayService, defaults: RealtimeDefaults) -> None:
        self._socket = socket
        self._service = service
        self._client_endpoint = defaults.client_endpoint
        self._language = defaults.language
        self._hotwords = defaults.hotwords
        self._replacements = defaults.replacements
        self._speakers = defaults.speakers
        self._held: Held | None = None
        self._decoder = RawDecoder(RawEncoding.S16LE, 16_000)
        self._results = Results({})
        self._sender: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Until the client goes."""
        try:
            async for message in self._socket:
                if isinstance(message, bytes):
                    await self._audio(message)
                else:
                    await self._command(message.strip())
        except ConnectionClosed:
            return
        finally:
            await self._reset()

    @property
    def _session(self) -> LiveSession | None:
        return None if self._held is None else self._held.session

    async def _audio(self, data: bytes) -> None:
        session = self._session
        if session is not None:
            async for pcm in self._decoder.push(data):
                await session.hear(pcm)

    async def _command(self, text: str) -> None:
        name, _, value = text.partition(":")
        commands: dict[str, Callable[[str], Awaitable[None]]] = {
            "START": self._start,
            "STOP": self._stop,
            "COMMIT": self._commit,
            "PING": self._ping,
            "LANGUAGE": self._set_language,
            "HOTWORDS": self._set_hotwords,
            "POSTPROCESS_HOTWORDS": self._set_replacements,
            "SPK": self._set_speakers,
        }
        command = commands.get(name.strip().upper())
        if command is None:
            return
        try:
            await command(value.strip())
        except TandemError as error:
            await self._send({"event": "error", "error": str(error)})

    async def _start(self, _: str) -> None:
        await self._reset()
        sessions = self._service.live()
        speakers = self._speakers and sessions.has_speakers
        options = SessionOptions(
            RecognizeOptions(language=self._language, hotwords=self._hotwords, speakers=speakers),
            client_endpoint=self._client_endpoint,
        )
        self._held = sessions.open(replace(options, partials=sessions.partials))
        self._decoder = RawDecoder(RawEncoding.S16LE, 16_000)
        self._results = Results(self._replacements, per_utterance=self._client_endpoint)
        await self._send({"event": "started"})
        self._sender = asyncio.create_task(self._report(self._held.session))

    async def _stop(self, _: str) -> None:
        if self._session is None or self._sender is None:
            await self._send({"event": "stopped"})
            return
        self._session.stop()
        await asyncio.gather(self._sender, return_exceptions=True)
        await self._reset()

    async def _commit(self, _: str) -> None:
        if not self._client_endpoint:
            await self._send({"event": "error", "error": _SERVER_MODE})
        elif self._session is None:
            await self._send({"event": "error", "error": _NOT_ACTIVE})
        elif self._session.finalize():
            self._results.committed(self._session.last_index)
        else:
            answer = self._results.committed_nothing(self._session.cursors)
            if answer is not None:
                await self._socket.send(answer)

    async def _ping(self, _: str) -> None:
        await self._send({"event": "pong"})

    async def _set_language(self, value: str) -> None:
        check_terms(value, ())
        self._language = value or None
        self._apply()
        await self._send({"event": "language_set", "language": value})

    async def _set_hotwords(self, value: str) -> None:
        hotwords = split_terms(value)
        check_terms(None, hotwords)
        self._hotwords = hotwords
        self._apply()
        await self._send({"event": "hotwords_set", "hotwords": list(self._hotwords)})

    async def _set_replacements(self, value: str) -> None:
        if len(value) > _MAX_REPLACEMENTS:
            raise InvalidRequest(f"replacements have at most {_MAX_REPLACEMENTS} characters together")
        self._replacements = parse_replacements(value)
        self._results.replacements = self._replacements
        told = {"event": "postprocess_hotwords_set", "postprocess_hotwords": dict(self._replacements)}
        await self._send(told)

    async def _set_speakers(self, value: str) -> None:
        wanted = value.lower() in _TRUE
        available = self._service.sessions is not None and self._service.sessions.has_speakers
        self._speakers = wanted and available
        await self._send({"event": "spk_set", "spk": self._speakers})

    def _apply(self) -> None:
        if self._session is not None:
            self._session.update(self._language, self._hotwords)

    async def _send(self, message: dict[str, Any]) -> None:
        await self._socket.send(json.dumps(message, ensure_ascii=False))

    async def _report(self, session: LiveSession) -> None:
        """Results of one session until its end, and how far the server is when nothing else happens."""
        updates = session.outbox.attach()
        heard = 0.0
        following = asyncio.ensure_future(anext(updates, None))
        try:
            while True:
                await asyncio.wait({following}, timeout=_PROGRESS)
                if not following.done():
                    if session.cursors.received > heard:
                        await self._socket.send(self._results.progress(session.cursors))
                    heard = session.cursors.received
                    continue
                update = following.result()
                if update is None:
                    return
                messages = self._results.messages(update)
                # Speakers of the whole session change many sentences at once, and each message has them all.
                repeated = isinstance(update.event, Refined) and session.outbox.has_more
                if not repeated:
                    for message in messages:
                        await self._socket.send(message)
                if isinstance(update.event, Ended | Failed):
                    await self._end(update.event)
                    return
                heard = update.cursors.received
                following = asyncio.ensure_future(anext(updates, None))
        finally:
            following.cancel()

    async def _end(self, event: Ended | Failed) -> None:
        if isinstance(event, Failed):
            await self._send({"event": "error", "error": str(event.error)})
            await self._socket.close(_INTERNAL, "recognition failed")
        elif event.reason is EndReason.CLIENT:
            await self._send({"event": "stopped"})
        else:
            await self._send({"event": "stopped", "reason": event.reason.value})
            await self._socket.close(_GOING_AWAY, event.reason.value)

    async def _reset(self) -> None:
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.gather(self._sender, return_exceptions=True)
            self._sender = None
        if self._held is not None and self._service.sessions is not None:
            self._service.sessions.close(self._held)
        self._held = None


@contextlib.asynccontextmanager
async def realtime_server(
    service: GatewayService,
    host: str,
    port: int,
    defaults: RealtimeDefaults,
    *,
    keys: KeyRing | None = None,
    tls: ServerTls | None = None,
) -> AsyncIterator[Server]:
    """The listening service. Pages of any origin may connect: the published page is opened as a file."""

    async def handle(socket: ServerConnection) -> None:
        await Connection(socket, service, defaults).run()

    async with serve(
        handle,
        host,
        port,
        max_size=_MAX_MESSAGE,
        ping_interval=_PING_SECONDS,
        # A busy client answers late; a dead one is found by the session's idle limit.
        ping_timeout=None,
        compression=None,
        ssl=tls.ssl_context() if tls is not None else None,
        process_request=partial(check_handshake, keys),
    ) as server:
        log.info("real-time WebSocket on ws://%s:%d", host, server.sockets[0].getsockname()[1])
        yield server
