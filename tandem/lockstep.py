"""Live recognition in step with its caller: audio in, the text of all audio so far out. Blocking."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import grpc

from tandem.access import Access
from tandem.asr.v1 import asr_pb2 as pb
from tandem.asr.v1 import asr_pb2_grpc
from tandem.errors import Unavailable
from tandem.live_events import CheckpointReached, Ended, EndReason, Final, LiveEvent, Partial
from tandem.rpc.channels import channel_options
from tandem.rpc.status import from_rpc_error
from tandem.script import join_texts
from tandem.streaming_client import StreamOptions
from tandem.streaming_convert import event_of, streaming_config

_PIECE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """The text of all audio so far. `fixed` begins it and every later one."""

    text: str = ""
    fixed: str = ""


class Lockstep:
    """One session on `target`, its options with `at_checkpoints`. Use as a context manager.

    Nothing happens between two calls, and no thread of this class is left after it. Raises a subclass of
    TandemError when the session fails, Unavailable when the server ends it.
    """

    def __init__(self, target: str, options: StreamOptions, access: Access | None = None) -> None:
        self._channel = (access or Access()).channel(target, channel_options())
        self._requests: queue.SimpleQueue[pb.StreamingRecognizeRequest | None] = queue.SimpleQueue()
        self._requests.put(pb.StreamingRecognizeRequest(config=streaming_config(options)))
        stub = asr_pb2_grpc.AsrServiceStub(self._channel)
        self._call = stub.StreamingRecognize(iter(self._requests.get, None))
        self._checkpoint = 0
        self._locked = ""
        self._running = Hypothesis()

    def hear(self, audio: bytes) -> Hypothesis:
        """Adds bytes of audio and waits for their text."""
        self._send(audio)
        self._checkpoint += 1
        checkpoint = pb.Checkpoint(id=self._checkpoint)
        self._requests.put(pb.StreamingRecognizeRequest(checkpoint=checkpoint))
        for event in self._events():
            if event == CheckpointReached(self._checkpoint):
                running = self._running
                return Hypothesis(
                    join_texts([self._locked, running.text]), join_texts([self._locked, running.fixed])
                )
        raise Unavailable("the server closed the stream")

    def finish(self, audio: bytes) -> str:
        """Adds the last bytes; the final text of everything."""
        self._send(audio)
        self._requests.put(None)
        for event in self._events():
            if isinstance(event, Ended):
                return self._locked
        raise Unavailable("the server closed the stream")

    def _send(self, audio: bytes) -> None:
        for first in range(0, len(audio), _PIECE_BYTES):
            self._requests.put(pb.StreamingRecognizeRequest(audio=audio[first : first + _PIECE_BYTES]))

    def _events(self) -> Iterator[LiveEvent]:
        try:
            for response in self._call:
                event = event_of(response)
                if event is not None:
                    self._note(event)
                    yield event
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    def _note(self, event: LiveEvent) -> None:
        if isinstance(event, Partial):
            self._running = Hypothesis(event.text, event.fixed)
        elif isinstance(event, Final):
            self._locked = join_texts([self._locked, event.segment.text])
            self._running = Hypothesis()
        elif isinstance(event, Ended) and event.reason is not EndReason.CLIENT:
            raise Unavailable(f"the server ended the session: {event.reason.value}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call.cancel()
        # Lets go the thread of gRPC that waits for requests.
        self._requests.put(None)
        self._channel.close()
