"""Several encoders as one: each segment goes where it is encoded soonest, and elsewhere when that one dies.

A live session sends its audio to one encoder (`live`), and to another one when that is gone: what an encoder
keeps of a session can be sent again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from gateway.audio.types import SAMPLE_RATE, Samples
from gateway.backends.encoder import (
    Encoder,
    EncoderBackend,
    ModelInfo,
    ignore,
)
from gateway.backends.live import LineEnd, LiveLink
from gateway.backends.member import Member
from gateway.backends.segment_call import SegmentRequest, SegmentResult
from gateway.backends.targets import Resolve, is_pool, resolver
from gateway.speakers.types import SegmentEmbeddings
from tandem.access import Access
from tandem.errors import DeadlineExceeded, Overloaded, TandemError, Unavailable

log = logging.getLogger("tandem.gateway.pool")

Answer = TypeVar("Answer")
Call = Callable[[Member, Callable[[], None]], Awaitable[Answer]]

_POLL_SECONDS = 0.25
_POLL_TIMEOUT = 2.0
_RESOLVE_SECONDS = 3.0
_RETIRE_SECONDS = 3.0

LIVE_TIMEOUT = 1.0
# Estimates of what an encoder has to do are as old as its last report.
_MARGIN = 2.0
_AVOID_SECONDS = 5.0


def connect_encoders(target: str, access: Access, live_timeout: float = LIVE_TIMEOUT) -> Encoder:
    """The encoders of --encoder: a pool for a list or a dns:/// name, else a plain channel."""
    if is_pool(target):
        return EncoderPool(resolver(target), access, live_timeout)
    return EncoderBackend(target, access=access)


class EncoderPool:
    """Has the calls of EncoderBackend. Made inside the event loop; `close` ends it.

    Members are asked for their load four times a second; between two reports the pool counts what it sends
    itself. A call that ends with UNAVAILABLE is sent to the next best member, each at most once; one that
    a full queue refuses too. Members of another checkpoint than the first are not used.

    A live session leaves a member that takes `live_timeout` seconds longer to encode than was to be expected,
    where there is another; 0 waits for ever.
    """

    def __init__(self, resolve: Resolve, access: Access, live_timeout: float = LIVE_TIMEOUT) -> None:
        self._resolve, self._access, self._live_timeout = resolve, access, live_timeout
        self._members: dict[str, Member] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._polls: dict[str, asyncio.Task[None]] = {}
        self._model_hash = ""
        self._looking = asyncio.create_task(self._look(), name="encoder-pool")
        self._found = asyncio.Event()

    # The calls of EncoderBackend

    async def model_info(self, timeout: float = 5.0) -> ModelInfo:
        """Raises Unavailable while no encoder is ready."""
        info = await self._first(lambda member: member.backend.model_info(timeout))
        self._model_hash = self._model_hash or info.model_hash
        return info

    async def tokenizers(self, timeout: float = 60.0) -> dict[str, bytes]:
        return await self._first(lambda member: member.backend.tokenizers(timeout))

    @property
    def capacity(self) -> float:
        """Seconds of audio that may wait in the queues of all members that take requests."""
        return sum(member.backend.capacity for member in self._members.values() if member.up)

    async def takes_requests(self) -> bool:
        return any(member.up and not self._is_foreign(member) for member in self._members.values())

    async def transcribe(
        self, request: SegmentRequest, *, ctc: bool, on_encoded: Callable[[], None] = ignore
    ) -> SegmentResult:
        async def call(member: Member, encoded: Callable[[], None]) -> SegmentResult:
            def done() -> None:
                encoded()
                on_encoded()

            return await member.backend.transcribe(request, ctc=ctc, on_encoded=done)

        return await self._place(len(request.samples), call)

    def live(self) -> LiveLink:
        """A line to the encoder that has most room; it should be left when that one goes."""
        members = self._order(0.0)
        if not members:
            raise Unavailable("no encoder is known", retry_after=1.0)
        # Sessions ask for little at a time, and for hours: what counts is how many there are.
        typical = _typical_speed(members)
        member = min(
            members, key=lambda member: (not member.up, (member.lines + 1) / (member.speed or typical))
        )
        return member.backend.live(_Chosen(member, self._live_timeout, self._has_another))

    def _has_another(self, member: Member) -> bool:
        return any(other.up for other in self._order(0.0) if other is not member)

    async def voices(self, samples: Samples, request_id: str, timeout: float) -> SegmentEmbeddings:
        async def call(member: Member, encoded: Callable[[], None]) -> SegmentEmbeddings:
            return await member.backend.voices(samples, request_id, timeout)

        return await self._place(len(samples), call)

    async def close(self) -> None:
        tasks = [self._looking, *self._polls.values(), *self._leaving]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for member in self._members.values():
            await member.close()

    # Choosing

    def _order(self, seconds: float) -> list[Member]:
        """Members, the one that would be done first in front; those that are down as a last resort."""
        members = [member for member in self._members.values() if not self._is_foreign(member)]
        speed = _typical_speed(members)
        return sorted(
            members,
            key=lambda member: (not member.up, member.wait(seconds, speed), member.calls),
        )

    async def _place(self, num_samples: int, call: Call[Answer]) -> Answer:
        seconds, tried = num_samples / SAMPLE_RATE, set[str]()
        failure: TandemError = Unavailable("no encoder is known", retry_after=1.0)
        while untried := [m for m in self._order(seconds) if m.address not in tried]:
            member = untried[0]
            tried.add(member.address)
            try:
                with member.sending(seconds) as encoded:
                    return await call(member, encoded)
            except Unavailable as error:
                failure = error
                member.set_up(False)
                log.warning("encoder %s: %s; trying another", member.address, error)
            except Overloaded as error:
                # The shortest time to come back, once all are full.
                if not isinstance(failure, Overloaded) or _later(failure, error):
                    failure = error
            member.failed_over()
        raise failure

    async def _first(self, call: Callable[[Member], Awaitable[Answer]]) -> Answer:
        await self._found.wait()
        failure: TandemError = Unavailable("no encoder is known", retry_after=1.0)
        for member in self._order(0.0):
            try:
                return await call(member)
            except (Unavailable, DeadlineExceeded) as error:
                failure = error
        raise failure

    # Keeping up with the encoders there are

    async def _look(self) -> None:
        while True:
            try:
                self._update(await self._resolve())
            except OSError as error:
                log.warning("cannot look the encoders up: %s", error)
            self._found.set()
            await asyncio.sleep(_RESOLVE_SECONDS)

    def _update(self, addresses: frozenset[str]) -> None:
        for address in addresses - self._members.keys():
            member = Member(address, self._access)
            self._members[address] = member
            self._polls[address] = asyncio.create_task(self._watch(member), name=f"encoder {address}")
        for address in self._members.keys() - addresses:
            leaving = asyncio.create_task(self._retire(self._members.pop(address)))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)

    async def _retire(self, member: Member) -> None:
        """It gets nothing new, its calls may end, its live sessions may move; then it is forgotten."""
        member.set_up(False)
        self._polls.pop(member.address).cancel()
        # A session moves when it asks next. One that asks nothing for long is cut off, and moves then.
        give_up = time.monotonic() + _RETIRE_SECONDS
        try:
            while member.calls or (member.lines and time.monotonic() < give_up):
                await asyncio.sleep(_POLL_SECONDS)
        finally:
            await member.close()

    async def _watch(self, member: Member) -> None:
        while True:
            was_up = member.up
            try:
                if not was_up:
                    member.model_hash = (await member.backend.model_info(_POLL_TIMEOUT)).model_hash
                await member.ask(_POLL_TIMEOUT)
            except (Unavailable, DeadlineExceeded) as error:
                member.set_up(False)
                if was_up:
                    log.warning("encoder %s is gone: %s", member.address, error)
            except TandemError:
                member.set_up(False)
                log.exception("encoder %s answers wrongly", member.address)
            if member.up and not was_up:
                foreign = self._is_foreign(member)
                log.info(
                    "encoder %s %s", member.address, "has another model" if foreign else "takes requests"
                )
            await asyncio.sleep(_POLL_SECONDS)

    def _is_foreign(self, member: Member) -> bool:
        """Whether it serves another checkpoint: a prompt fits only the tokenizer that it was made with."""
        return bool(self._model_hash and member.model_hash and member.model_hash != self._model_hash)


def _typical_speed(members: Sequence[Member]) -> float:
    """Seconds of audio per second: what stands in for a member that has not encoded anything yet."""
    known = [member.speed for member in members if member.speed]
    return sum(known) / len(known) if known else 1.0


class _Chosen:
    """The member that a live session's line leads to."""

    def __init__(self, member: Member, timeout: float, has_another: Callable[[Member], bool]) -> None:
        self._member, self._timeout, self._has_another = member, timeout, has_another
        member.lines += 1

    def sending(self, seconds: float) -> contextlib.AbstractContextManager[Callable[[], None]]:
        return self._member.sending(seconds)

    def is_stale(self) -> bool:
        return not self._member.up

    def is_overdue(self, waited: float) -> bool:
        if not self._timeout:
            return False
        expected = self._member.wait(0.0, 1.0)
        return waited > self._timeout + _MARGIN * expected and self._has_another(self._member)

    def ended(self, why: LineEnd) -> None:
        self._member.lines -= 1
        if why is LineEnd.CLOSED:
            return
        if why is LineEnd.STUCK:
            log.warning("encoder %s encodes nothing; its live sessions go to another", self._member.address)
            self._member.avoid(_AVOID_SECONDS)
        self._member.set_up(False)
        self._member.failed_over()


def _later(first: Overloaded, second: Overloaded) -> bool:
    return (first.retry_after or 0.0) > (second.retry_after or 0.0)
