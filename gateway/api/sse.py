"""OpenAI's transcript events as server-sent events: one delta per finished segment, in order."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway.api.errors import openai_error_body
from gateway.api.openai_format import diarized_segments, usage
from gateway.pipeline import Recognizer
from tandem.errors import InternalError, TandemError
from tandem.results import RecognizeOptions, Segment, Transcript
from tandem.script import join_texts


async def results_in_order(
    recognizer: Recognizer, audio: bytes | Path, options: RecognizeOptions
) -> AsyncGenerator[Segment | Transcript]:
    """Every segment when it and all before it are done, then the transcript. Closing it ends the work."""
    finished: asyncio.Queue[Segment | None] = asyncio.Queue()
    work = asyncio.create_task(recognizer.recognize(audio, options, finished.put_nowait))
    work.add_done_callback(lambda _: finished.put_nowait(None))
    try:
        while (segment := await finished.get()) is not None:
            yield segment
        yield work.result()
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def transcript_events(
    results: AsyncIterator[Segment | Transcript], *, diarize: bool
) -> AsyncGenerator[dict[str, Any]]:
    """transcript.text.delta events, whose texts together are the text of transcript.text.done."""
    sent = ""
    async for result in results:
        if isinstance(result, Segment):
            joined = join_texts([sent, result.text])
            yield {"type": "transcript.text.delta", "delta": joined[len(sent) :]}
            sent = joined
            continue
        if diarize:
            for segment in diarized_segments(result):
                yield segment
        yield {"type": "transcript.text.done", "text": result.text, "usage": usage(result)}


class EventResponse(StreamingResponse):
    """The answer to a request with stream=true; `resources` are closed when it ends, however it ends."""

    def __init__(
        self, first: dict[str, Any], rest: AsyncIterator[dict[str, Any]], resources: contextlib.AsyncExitStack
    ) -> None:
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        super().__init__(_lines(first, rest), headers=headers, media_type="text/event-stream")
        self._resources = resources

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._resources:
            await super().__call__(scope, receive, send)


async def _lines(first: dict[str, Any], rest: AsyncIterator[dict[str, Any]]) -> AsyncGenerator[str]:
    """An error after the first event is an event of its own."""
    yield _line(first)
    try:
        async for event in rest:
            yield _line(event)
        yield "data: [DONE]\n\n"
    except TandemError as error:
        yield _line(openai_error_body(error))
    except Exception:
        yield _line(openai_error_body(InternalError("internal error, see the log of the server")))
        raise


def _line(event: dict[str, Any]) -> str:
    return f"data: {json.dumps(event, ensure_ascii=False)}\n\n"
