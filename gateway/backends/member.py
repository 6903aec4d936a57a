"""One encoder of a pool: how much audio it still has to encode, and whether it takes requests."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from prometheus_client import Counter, Gauge

from gateway.backends.encoder import EncoderBackend, EncoderLoad
from tandem.access import Access

_UP = Gauge("tandem_gateway_encoder_up", "1 while the encoder takes requests.", ("address",))
_OUTSTANDING = Gauge(
    "tandem_gateway_encoder_outstanding_seconds", "Seconds of audio sent and not yet encoded.", ("address",)
)
_SENT = Counter("tandem_gateway_encoder_audio_seconds", "Seconds of audio sent.", ("address",))
_FAILOVERS = Counter(
    "tandem_gateway_encoder_failovers", "Segments that another encoder had to take over.", ("address",)
)
_SMOOTHING = 0.2

# A lost encoder must not cost a caller more than a moment, so the pool retries and not the channel;
# one that comes back is noticed within a second.
_CHANNEL = (
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Two pools of one process must not share a connection's failures.
    ("grpc.use_local_subchannel_pool", 1),
)


@dataclass(slots=True, eq=False)
class Member:
    """One encoder. Times are seconds of audio, `speed` is seconds of audio per second, 0 when unknown."""

    address: str
    access: Access
    backend: EncoderBackend = field(init=False)
    up: bool = False
    speed: float = 0.0
    outstanding: float = 0.0
    """Sent from here and not yet encoded."""
    others: float = 0.0
    """Other gateways' audio, by the last report."""
    calls: int = 0
    lines: int = 0
    """Live sessions that send their audio there."""
    model_hash: str = ""
    """Of the checkpoint that it served when it came up."""
    avoided_until: float = 0.0
    """By the monotonic clock: until then a report does not make it up."""

    def __post_init__(self) -> None:
        self.backend = EncoderBackend(self.address, _CHANNEL, self.access)
        _UP.labels(self.address).set(0)
        _OUTSTANDING.labels(self.address).set(0)
        _SENT.labels(self.address)
        _FAILOVERS.labels(self.address)

    @contextlib.contextmanager
    def sending(self, seconds: float) -> Iterator[Callable[[], None]]:
        """Accounts for one segment; call the function when it has been encoded, or leave the block."""
        waiting = True

        def encoded() -> None:
            nonlocal waiting
            if waiting:
                waiting = False
                self._add(-seconds)

        self.calls += 1
        self._add(seconds)
        _SENT.labels(self.address).inc(seconds)
        try:
            yield encoded
        finally:
            self.calls -= 1
            encoded()

    def _add(self, seconds: float) -> None:
        self.outstanding = max(0.0, self.outstanding + seconds)
        _OUTSTANDING.labels(self.address).set(self.outstanding)

    def wait(self, seconds: float, speed: float) -> float:
        """When a segment of so many seconds would be encoded; `speed` stands in while none is known."""
        return (self.outstanding + self.others + seconds) / (self.speed or speed)

    async def ask(self, timeout: float) -> None:
        """Learn its load; down on any failure, with Unavailable or DeadlineExceeded raised."""
        before = self.outstanding
        try:
            load = await self.backend.load(timeout)
        except BaseException:
            self.set_up(False)
            raise
        self.reported(load, before)

    def reported(self, load: EncoderLoad, mine: float) -> None:
        """A report arrived that was asked for when `mine` seconds from here were outstanding."""
        self.others = max(0.0, load.seconds - mine)
        if load.speed > 0:
            self.speed += (load.speed - self.speed) * (_SMOOTHING if self.speed else 1.0)
        self.set_up(time.monotonic() >= self.avoided_until)

    def set_up(self, up: bool) -> None:
        self.up = up
        _UP.labels(self.address).set(up)

    def avoid(self, seconds: float) -> None:
        """It answers but does not work: it counts as down for so long."""
        self.avoided_until = time.monotonic() + seconds

    def failed_over(self) -> None:
        """A segment sent here had to be sent to another encoder."""
        _FAILOVERS.labels(self.address).inc()

    async def close(self) -> None:
        await self.backend.close()
        for metric in (_UP, _OUTSTANDING, _SENT, _FAILOVERS):
            with contextlib.suppress(KeyError):
                metric.remove(self.address)
