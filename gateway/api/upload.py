"""Reads a multipart form with one recording, in bounded memory, with every limit enforced on the way."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from gateway.api.spool import AudioSpool
from tandem.errors import Cancelled, DeadlineExceeded, InvalidRequest, LimitExceeded, TandemError

FILE_FIELD = "file"
_MAX_FIELDS = 128
_MAX_FIELD_BYTES = 1 << 20
_IDLE_SECONDS = 60.0
_LINGER_SECONDS = 5.0
# Boundaries and part headers around a recording of the largest size.
_ENVELOPE_BYTES = 64 * 1024


class UploadTimeout(DeadlineExceeded):
    """The client stopped sending in the middle of its request."""

    http_status = 408
    reason = "UPLOAD_TIMEOUT"


@dataclass(frozen=True, slots=True)
class Upload:
    """A form: the recording, and the values of each other field in order."""

    audio: bytes | Path
    fields: dict[str, list[str]]


@dataclass(slots=True)
class _Part:
    name: str = ""
    is_file: bool = False
    data: bytearray = field(default_factory=bytearray)
    headers: dict[bytes, bytes] = field(default_factory=dict)


class _FormReader:
    """Feeds the parser; text fields are kept here, pieces of the recording wait in `pieces`."""

    def __init__(self, boundary: bytes) -> None:
        self.fields: dict[str, list[str]] = {}
        self.pieces: list[bytes] = []
        self.files = 0
        self.complete = False
        self._part = _Part()
        self._header: tuple[bytearray, bytearray] = (bytearray(), bytearray())
        self._field_bytes = 0
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._data,
                "on_part_end": self._end,
                "on_end": self._finish,
            },
        )

    def feed(self, chunk: bytes) -> list[bytes]:
        """Pieces of the recording in this chunk of the body."""
        self._parser.write(chunk)
        pieces, self.pieces = self.pieces, []
        return pieces

    def _begin(self) -> None:
        self._part = _Part()

    def _header_end(self) -> None:
        name, value = self._header
        self._part.headers[bytes(name).lower()] = bytes(value)
        self._header = (bytearray(), bytearray())

    def _headers_finished(self) -> None:
        part = self._part
        _, options = parse_options_header(part.headers.get(b"content-disposition", b""))
        part.name = options.get(b"name", b"").decode("utf-8", "replace")
        part.is_file = b"filename" in options
        if not part.is_file:
            return
        if part.name != FILE_FIELD:
            raise InvalidRequest.of(part.name, f"a recording belongs into the field {FILE_FIELD!r}")
        self.files += 1
        if self.files > 1:
            raise InvalidRequest.of(FILE_FIELD, "more than one recording; send one per request")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._part.is_file:
            self.pieces.append(data[start:end])
            return
        self._field_bytes += end - start
        if self._field_bytes > _MAX_FIELD_BYTES:
            raise LimitExceeded(f"the form's text fields exceed {_MAX_FIELD_BYTES} bytes")
        self._part.data += data[start:end]

    def _end(self) -> None:
        if self._part.is_file:
            return
        try:
            value = self._part.data.decode()
        except UnicodeDecodeError as error:
            raise InvalidRequest.of(self._part.name, "is not UTF-8") from error
        self.fields.setdefault(self._part.name, []).append(value)
        if sum(map(len, self.fields.values())) > _MAX_FIELDS:
            raise LimitExceeded(f"the form has more than {_MAX_FIELDS} fields")

    def _finish(self) -> None:
        self.complete = True


@contextlib.asynccontextmanager
async def receive_form(request: Request, max_audio_bytes: int) -> AsyncIterator[Upload]:
    """The form of a request; its recording is gone on leaving.

    Raises InvalidRequest, LimitExceeded, UploadTimeout; Cancelled when the client goes away. Refused
    uploads are read (and dropped) for a few seconds more, so that the client gets to read the answer.
    """
    async with AudioSpool(max_audio_bytes) as spool:
        body = _chunks(request)
        try:
            fields = await _read(request, body, spool, max_audio_bytes)
            audio = await spool.audio()
        except TandemError as error:
            if not isinstance(error, Cancelled | UploadTimeout):
                await _linger(body)
            raise
        yield Upload(audio, fields)


async def _read(
    request: Request, body: AsyncIterator[bytes], spool: AudioSpool, max_audio_bytes: int
) -> dict[str, list[str]]:
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > max_audio_bytes + _MAX_FIELD_BYTES + _ENVELOPE_BYTES:
        raise LimitExceeded(f"{announced} bytes exceed the limit of {max_audio_bytes}")
    reader = _FormReader(_boundary(request))
    try:
        async for chunk in body:
            for piece in reader.feed(chunk):
                await spool.write(piece)
    except FormParserError as error:
        raise InvalidRequest(f"the form cannot be read: {error}") from error
    if not reader.complete:
        raise InvalidRequest("the form ends in the middle")
    if FILE_FIELD in reader.fields:
        raise InvalidRequest.of(FILE_FIELD, "is text; send the recording as a file (curl: -F file=@NAME)")
    if not reader.files:
        raise InvalidRequest.of(FILE_FIELD, "is missing")
    if not spool.size:
        raise InvalidRequest.of(FILE_FIELD, "is empty")
    return reader.fields


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or b"boundary" not in options:
        raise InvalidRequest("the body must be multipart/form-data with the recording in the field 'file'")
    return options[b"boundary"]


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(_IDLE_SECONDS):
                chunk = await anext(stream, None)
        except TimeoutError as error:
            raise UploadTimeout(f"no data for {_IDLE_SECONDS:g} s") from error
        except ClientDisconnect as error:
            raise Cancelled("the client went away") from error
        if chunk is None:
            return
        yield chunk


async def _linger(body: AsyncIterator[bytes]) -> None:
    """A server that closes with unread data resets the connection, and the client loses the answer."""
    deadline = time.monotonic() + _LINGER_SECONDS
    with contextlib.suppress(TandemError):
        async for _ in body:
            if time.monotonic() > deadline:
                return
