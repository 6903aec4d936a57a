"""What recent segments were encoded to: the same audio again costs a digest in place of a batch."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import fields, is_dataclass, replace
from operator import attrgetter
from typing import Any

import numpy as np
from blake3 import blake3

from encoder_service.batcher import Encoded
from encoder_service.messages import EncodedAudio, EncodeItem, StageTimes
from encoder_service.telemetry import CacheOutcome, observe_cache, observe_kept
from encoder_service.waves import Samples

Key = tuple[Any, ...]
"""A digest of the samples, their type, and every option of the item that its result depends on."""

_NO_OPTIONS = {"samples", "live", "urgent"}
_options = attrgetter(*(field.name for field in fields(EncodeItem) if field.name not in _NO_OPTIONS))
_QUICK_BYTES = 4 * 2**20
"""Up to this, a minute of float32 samples, audio is digested in the event loop: half a millisecond."""
_ENTRY_BYTES = 2048
"""What an entry's objects take beside its arrays, about."""
_LARGEST_SHARE = 8
_NO_TIME = StageTimes(0.0, 0.0, 0.0, 0.0)


class EncodingCache:
    """Stands in front of `submit`, the batcher's. Made for one event loop.

    Keeps results of at most `max_bytes`, none that alone would take an eighth of it; what was not asked for
    longest goes first. They lie on the host: that is where they are sent from, so from a device's memory, of
    which batches and key-value caches make better use, each would have to be copied again.

    Equal requests at a time share one computation. With 0 bytes nothing is kept or shared.
    """

    def __init__(
        self, submit: Callable[[EncodeItem], Awaitable[Encoded]], identity: str, max_bytes: int
    ) -> None:
        """`identity` names the weights, as their hash does."""
        self._submit = submit
        # Every segment pays for its digest in the event loop, and SHA-256 takes over four times as long.
        self._seed = blake3(identity.encode())
        self._max_bytes = max_bytes
        self._entries: OrderedDict[Key, EncodedAudio] = OrderedDict()
        self._running: dict[Key, asyncio.Future[Encoded | None]] = {}
        self.bytes = 0
        """Of all that is kept."""

    def __len__(self) -> int:
        return len(self._entries)

    async def encode(self, item: EncodeItem) -> Encoded:
        """What `submit` gives for the item, and its errors, which are not kept.

        A kept result says that it took no time, in a batch of 0. Cancelling ends only the caller's own wait.
        """
        if not self._max_bytes or item.live is not None:
            return await self._submit(item)
        key = await self._key(item)
        while True:
            kept = self._entries.get(key)
            if kept is not None:
                self._entries.move_to_end(key)
                observe_cache(CacheOutcome.HIT)
                return Encoded(kept, 0.0)
            running = self._running.get(key)
            if running is None:
                observe_cache(CacheOutcome.MISS)
                return await self._compute(key, item)
            shared = await asyncio.shield(running)
            if shared is not None:
                observe_cache(CacheOutcome.SHARED)
                return shared
            # Whoever computed it failed or left: the first to come round takes over, the others wait for it.

    async def _key(self, item: EncodeItem) -> Key:
        samples = item.samples
        quick = samples.nbytes <= _QUICK_BYTES
        digest = self._digest(samples) if quick else await asyncio.to_thread(self._digest, samples)
        return (digest, samples.dtype, _options(item))

    def _digest(self, samples: Samples) -> bytes:
        state = self._seed.copy()
        state.update(samples.data.cast("B"))
        return state.digest()

    async def _compute(self, key: Key, item: EncodeItem) -> Encoded:
        running = self._running[key] = asyncio.get_running_loop().create_future()
        encoded: Encoded | None = None
        try:
            encoded = await self._submit(item)
            self._keep(key, encoded.audio)
            return encoded
        finally:
            del self._running[key]
            running.set_result(encoded)

    def _keep(self, key: Key, audio: EncodedAudio) -> None:
        size = _size(audio)
        if size > self._max_bytes // _LARGEST_SHARE:
            return
        self._entries[key] = replace(_owned(audio), times=_NO_TIME, batch_size=0)
        self.bytes += size
        evicted = 0
        while self.bytes > self._max_bytes:
            _, oldest = self._entries.popitem(last=False)
            self.bytes -= _size(oldest)
            evicted += 1
        observe_kept(evicted, self.bytes)


def _size(audio: EncodedAudio) -> int:
    """Bytes that keeping the result takes."""
    return _ENTRY_BYTES + sum(array.nbytes for array in _arrays(audio))


def _arrays(value: Any) -> list[np.ndarray[Any, Any]]:
    """Every array in a result and its parts."""
    if isinstance(value, np.ndarray):
        return [value]
    if is_dataclass(value):
        return [array for field in fields(value) for array in _arrays(getattr(value, field.name))]
    return []


def _owned(value: Any) -> Any:
    """The same with its own memory: the arrays of a result are views of those of its whole batch."""
    if isinstance(value, np.ndarray):
        return value if value.base is None else value.copy()
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: _owned(getattr(value, field.name)) for field in fields(value)})
    return value
