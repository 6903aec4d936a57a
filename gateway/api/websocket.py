"""WS /ws: the offline WebSocket of the FunASR vLLM guide, section 5.5. Times are milliseconds."""

from __future__ import annotations

import asyncio
import logging
import struct
import uuid
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect

from gateway.api.auth import KEY_SUBPROTOCOL
from gateway.api.forms import split_terms
from gateway.api.spool import AudioSpool
from gateway.api.websocket_messages import error_message, final_message, progress_message
from gateway.service import GatewayService
from tandem.convert import check_terms
from tandem.errors import InternalError, InvalidRequest, LimitExceeded, TandemError
from tandem.results import RecognizeOptions, Transcript

log = logging.getLogger("tandem.gateway.websocket")

SAMPLE_RATE = 16_000
BYTES_PER_SECOND = SAMPLE_RATE * 2
_IDLE_SECONDS = 600.0
_TRUE = frozenset(("true", "1", "on", "yes"))
# A wave header whose data length is left open: the recording follows.
_WAVE_HEADER = struct.pack(
    "<4sI4s4sIHHIIHH4sI",
    *(b"RIFF", 0xFFFFFFFF, b"WAVE", b"fmt ", 16, 1, 1, SAMPLE_RATE, BYTES_PER_SECOND, 2, 16, b"data", 0),
)


def websocket_router(service: GatewayService, allowed_origins: Sequence[str] = ()) -> APIRouter:
    """The route. Pages may connect from the server's own origin and from `allowed_origins`."""
    router = APIRouter()

    @router.websocket("/ws")
    async def ws(websocket: WebSocket) -> None:
        if not origin_allowed(websocket, allowed_origins):
            await websocket.close(1008, "origin not allowed")
            return
        await websocket.accept(chosen_subprotocol(websocket))
        session = OfflineSession(websocket, service)
        try:
            await session.run()
        except WebSocketDisconnect:
            return
        finally:
            await session.close()

    return router


def origin_allowed(websocket: WebSocket, allowed: Sequence[str]) -> bool:
    """Browsers do not apply CORS to WebSockets, so that the same opt-in is checked here."""
    origin = websocket.headers.get("origin")
    if origin is None or "*" in allowed or origin in allowed:
        return True
    return urlsplit(origin).netloc == websocket.headers.get("host")


def chosen_subprotocol(websocket: WebSocket) -> str | None:
    """A browser that offers some hangs up unless one is chosen: the first that is no API key, if there is."""
    offered: list[str] = websocket.scope.get("subprotocols", [])
    return next((name for name in offered if not name.startswith(KEY_SUBPROTOCOL)), next(iter(offered), None))


class OfflineSession:
    """One connection: settings stay, START begins a new recording, STOP answers with its transcript."""

    def __init__(self, websocket: WebSocket, service: GatewayService) -> None:
        self._websocket = websocket
        self._service = service
        self._language: str | None = None
        self._hotwords: tuple[str, ...] = ()
        self._speakers = False
        self._spool: AudioSpool | None = None
        self._num_bytes = 0
        self._told_inactive = False
        self._progress = asyncio.Event()
        self._progress_task = asyncio.create_task(self._send_progress())
        self._sending = asyncio.Lock()
        self._receiving: asyncio.Task[Any] | None = None

    async def run(self) -> None:
        """Until the client disconnects (WebSocketDisconnect) or is silent for too long."""
        while True:
            try:
                async with asyncio.timeout(_IDLE_SECONDS):
                    message = await self._receive()
            except TimeoutError:
                await self._send_error(InvalidRequest(f"nothing received for {_IDLE_SECONDS:g} s"))
                await self._websocket.close(1001)
                return
            try:
                await self._handle(message)
            except TandemError as error:
                await self._send_error(error)

    async def close(self) -> None:
        """Drop the recording and end all tasks."""
        tasks = [task for task in (self._progress_task, self._receiving) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._drop_audio()

    async def _receive(self) -> dict[str, Any]:
        if self._receiving is None:
            self._receiving = asyncio.create_task(self._next_message())
        message: dict[str, Any] = await asyncio.shield(self._receiving)
        self._receiving = None
        return message

    async def _next_message(self) -> dict[str, Any]:
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005), message.get("reason"))
        return dict(message)

    async def _handle(self, message: dict[str, Any]) -> None:
        data, text = message.get("bytes"), message.get("text")
        if data is not None:
            await self._audio(data)
            return
        name, _, value = (text or "").strip().partition(":")
        match name.strip().upper():
            case "START":
                self._start()
                await self._send({"event": "started"})
            case "STOP":
                await self._stop()
            case "LANGUAGE":
                check_terms(value.strip(), ())
                self._language = value.strip() or None
                await self._send({"event": "language_set", "language": self._language})
            case "HOTWORDS":
                hotwords = split_terms(value)
                check_terms(None, hotwords)
                self._hotwords = hotwords
                await self._send({"event": "hotwords_set", "hotwords": list(self._hotwords)})
            case "SPK":
                self._speakers = value.strip().lower() in _TRUE and self._has_speakers
                await self._send({"event": "spk_set", "spk": self._speakers})
            case _:
                raise InvalidRequest(
                    f"unknown command {name[:40]!r}; use START, LANGUAGE:, HOTWORDS:, SPK: or STOP"
                )

    def _start(self) -> None:
        self._drop_audio()
        self._told_inactive = False
        self._spool = AudioSpool(self._service.limits.max_audio_bytes + len(_WAVE_HEADER))

    async def _audio(self, data: bytes) -> None:
        if self._spool is None and self._told_inactive:
            return
        if self._spool is None:
            # Once is enough: a client that goes on sending gets no answer to each of its messages.
            self._told_inactive = True
            raise InvalidRequest("Session is not active; send START first")
        try:
            if not self._num_bytes:
                await self._spool.write(_WAVE_HEADER)
            await self._spool.write(data)
            longest = self._service.limits.max_audio_duration
            if self._num_bytes + len(data) > longest * BYTES_PER_SECOND:
                raise LimitExceeded(f"the audio exceeds the limit of {longest:g} s")
        except LimitExceeded:
            self._drop_audio()
            self._told_inactive = True
            raise
        self._num_bytes += len(data)
        self._progress.set()

    async def _stop(self) -> None:
        """The transcript if there is audio, an error if that fails, and `stopped` in any case."""
        try:
            if self._spool is not None and self._num_bytes:
                await self._send_transcript(self._spool)
        except TandemError as error:
            await self._send_error(error)
        finally:
            self._drop_audio()
        await self._send({"event": "stopped"})

    async def _send_transcript(self, spool: AudioSpool) -> None:
        if self._num_bytes % 2:
            await self._send_error(InvalidRequest("odd number of audio bytes; the last one is left out"))
        duration_ms = self._duration_ms
        work = asyncio.create_task(self._recognize(spool))
        if self._receiving is None:
            self._receiving = asyncio.create_task(self._next_message())
        try:
            # A client that goes away ends the work; one that already sends its next command does not.
            await asyncio.wait({work, self._receiving}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done() and self._receiving.exception() is not None:
                await self._receive()
            transcript = await work
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
        await self._send(final_message(transcript, duration_ms))

    async def _recognize(self, spool: AudioSpool) -> Transcript:
        request_id = uuid.uuid4().hex[:16]
        options = RecognizeOptions(
            language=self._language,
            hotwords=self._hotwords,
            speakers=self._speakers,
            request_id=request_id,
        )
        try:
            return await self._service.ready().recognize(await spool.audio(), options)
        except TandemError:
            raise
        except Exception as error:
            log.exception("request %s failed", request_id)
            raise InternalError(f"internal error, see the log for request {request_id}") from error

    @property
    def _has_speakers(self) -> bool:
        recognizer = self._service.recognizer
        return recognizer is not None and recognizer.model.info.has_speakers

    @property
    def _duration_ms(self) -> int:
        return self._num_bytes * 1000 // BYTES_PER_SECOND

    async def _send_progress(self) -> None:
        """Answers audio. A client that does not read holds up this task, and never the reading of audio."""
        while True:
            await self._progress.wait()
            self._progress.clear()
            await self._send(progress_message(self._duration_ms))

    async def _send_error(self, error: TandemError) -> None:
        await self._send(error_message(error))

    async def _send(self, body: dict[str, Any]) -> None:
        async with self._sending:
            await self._websocket.send_json(body)

    def _drop_audio(self) -> None:
        if self._spool is not None:
            self._spool.close()
        self._spool, self._num_bytes = None, 0
        self._progress.clear()
