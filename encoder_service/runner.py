"""Runs the packed networks on batches, as they are or in buckets of fixed shape that CUDA graphs replay."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from encoder_service.models.ctc import CompactPosteriors
from encoder_service.models.packed import PackedAdaptor, PackedNetworks
from encoder_service.models.packing import Layout, Packing
from encoder_service.stage_clock import StageClock
from encoder_service.transfer import Transfer

log = logging.getLogger("tandem.encoder.runner")

QUANTUM = 128
"""Rows of the smallest bucket, and what larger ones are multiples of: about 8 s of audio."""
SLOTS = (16, 256)
"""Segments of a bucket at most."""
SHORT_FRAMES = 512
"""Longest segment of a bucket that has no long ones."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which parts of the networks a batch needs beside the encoder."""

    embeds: bool
    ctc: bool


@dataclass(frozen=True, slots=True, eq=False)
class NetworkOutputs:
    """Of one batch, packed as its segments were; valid until the runner's next batch.

    states float32 [T, d]; adapted float32 [T', llm_dim]; hidden float32 [T'', d_ctc] and its compact
    posteriors; None what was not wanted. Rows past the last segment hold nothing.
    """

    states: Tensor
    adapted: Tensor | None
    hidden: Tensor | None
    compact: CompactPosteriors | None


class Runner(Protocol):
    """`clock` is marked after the encoder, the adaptor and the CTC branch."""

    def prepare(self) -> int:
        """Whatever would make the first batches slow; returns how many shapes of batches are ready."""

    def run(
        self, features: Tensor, lengths: tuple[int, ...], wanted: Wanted, clock: StageClock
    ) -> NetworkOutputs: ...


class PlainRunner:
    """Every batch in its own shape."""

    def __init__(self, networks: PackedNetworks, top_k: int, transfer: Transfer) -> None:
        self._networks, self._top_k, self._transfer = networks, top_k, transfer

    def prepare(self) -> int:
        """Nothing: there is no shape that comes again."""
        return 0

    def run(
        self, features: Tensor, lengths: tuple[int, ...], wanted: Wanted, clock: StageClock
    ) -> NetworkOutputs:
        networks, layout = self._networks, Layout.of(lengths)
        frames = self._packing(layout)
        states = networks.encoder(features, frames)
        clock.mark()
        adapted = self._adapt(networks.adaptor, states, frames) if wanted.embeds else None
        clock.mark()
        hidden = compact = None
        if wanted.ctc and networks.ctc is not None and networks.head is not None:
            hidden = self._adapt(networks.ctc, states, frames)
            compact = networks.head(hidden, self._top_k)
        clock.mark()
        return NetworkOutputs(states, adapted, hidden, compact)

    def _adapt(self, adaptor: PackedAdaptor, states: Tensor, frames: Packing) -> Tensor:
        stacks = frames if adaptor.k == 1 else self._packing(frames.layout.stack(adaptor.k))
        return adaptor(states, frames, stacks)

    def _packing(self, layout: Layout) -> Packing:
        return Packing.of(layout, self._transfer.table(layout.table()))


class Executor(Protocol):
    """Runs a step whose inputs and outputs lie in buffers that never move; `key` names its shape."""

    def __call__(self, key: Hashable, step: Callable[[], None]) -> None: ...


def execute(key: Hashable, step: Callable[[], None]) -> None:
    """The executor without graphs."""
    step()


class GraphExecutor:
    """Captures each step as a CUDA graph when it first comes, and replays it from then on.

    All graphs share one pool of memory, where their cuBLAS workspaces lie too. A graph that was captured is
    kept: newer releases of torch free workspaces along with any graph of their stream (pytorch issue 193402).
    So there are at most `limit`; a step beyond that, and every step once a capture has failed, runs as it is.
    """

    def __init__(self, limit: int = 1024) -> None:
        self._limit = limit
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}
        self._pool = torch.cuda.graph_pool_handle()
        self._works = True

    def __len__(self) -> int:
        return len(self._graphs)

    def __call__(self, key: Hashable, step: Callable[[], None]) -> None:
        graph = self._graphs.get(key) if self._works else None
        if graph is not None:
            graph.replay()
            return
        step()  # whatever initialises lazily does so now; this batch is served by it
        if self._works and len(self._graphs) < self._limit:
            self._capture(key, step)

    def _capture(self, key: Hashable, step: Callable[[], None]) -> None:
        graph = torch.cuda.CUDAGraph()
        # A graph holds the bare address of a workspace that torch keeps, or not, by thread and stream. As in
        # torch's own graph trees none is there at first, so that it comes from the pool, and none stays.
        torch._C._cuda_clearCublasWorkspaces()
        try:
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                step()
            finally:
                graph.capture_end()
        except RuntimeError:
            log.exception("no CUDA graph of %s; encoding goes on without graphs, more slowly", key)
            self._works = False
            return
        finally:
            torch._C._cuda_clearCublasWorkspaces()
        self._graphs[key] = graph
        if len(self._graphs) == self._limit:
            log.warning("%d CUDA graphs are captured; other shapes run without, more slowly", self._limit)


@dataclass(frozen=True, slots=True)
class Bucket:
    """A shape: room for `rows` frames of up to `slots` segments, none of more than `longest` frames."""

    rows: int
    slots: int
    longest: int

    def layout(self, lengths: tuple[int, ...]) -> Layout:
        return Layout(lengths, self.rows, self.slots, self.longest, padded=True)


def find_bucket(lengths: tuple[int, ...], most: int, longest: int) -> Bucket | None:
    """The smallest bucket for these frames, with at most `most` rows and segments of `longest`, if any.

    At most an eighth of a bucket beyond the first ones stays empty.
    """
    rows = _rows(sum(lengths))
    slots = next((slots for slots in SLOTS if slots >= len(lengths)), None)
    peak = max(lengths)
    if rows > most or slots is None or peak > longest:
        return None
    return Bucket(rows, slots, min(rows, SHORT_FRAMES if peak <= SHORT_FRAMES else longest, longest))


def batches_of_all_buckets(most: int, longest: int) -> Iterator[tuple[int, ...]]:
    """Frames of the segments of one batch for each bucket that find_bucket can find, the largest first."""
    sizes = [_rows(1)]
    while (larger := _rows(sizes[-1] + 1)) <= most:
        sizes.append(larger)
    for rows in reversed(sizes):
        for fewer, slots in zip((0, *SLOTS), SLOTS, strict=False):
            short = min(rows, SHORT_FRAMES, longest)
            for peak in sorted({short, min(rows - fewer, longest)}):
                count = max(fewer + 1, -(-rows // peak))
                if count <= slots and (peak == short or peak > SHORT_FRAMES):
                    yield _cut(rows, peak, count)


def _rows(frames: int) -> int:
    """Rows of the smallest bucket for so many frames."""
    step = max(QUANTUM, (1 << max(0, frames - 1).bit_length()) // 16)
    return -(-frames // step) * step


def _cut(total: int, peak: int, count: int) -> tuple[int, ...]:
    """`count` lengths of at most `peak` frames, the first as long as can be, which add up to `total`."""
    first = min(peak, total - (count - 1))
    if count == 1:
        return (first,)
    each, more = divmod(total - first, count - 1)
    return (first, *(each + (index < more) for index in range(count - 1)))


class BucketRunner:
    """Batches padded at the end to a bucket, in buffers that never move, so that `executor` may replay them.

    A batch without a bucket goes to a PlainRunner. `most` and `longest` are frames of a batch and a segment.
    """

    def __init__(
        self,
        networks: PackedNetworks,
        sizes: BufferSizes,
        top_k: int,
        transfer: Transfer,
        executor: Executor = execute,
    ) -> None:
        self._networks, self._sizes, self._top_k = networks, sizes, top_k
        self._transfer, self._executor = transfer, executor
        self._plain = PlainRunner(networks, top_k, transfer)
        self._buffers = _Buffers.of(sizes, networks, top_k, transfer.device)

    def prepare(self) -> int:
        """Run a batch of silence in every bucket, so that none has to be captured later; returns how many."""
        batches = list(batches_of_all_buckets(self._sizes.rows, self._sizes.longest))
        silence = torch.zeros(
            self._sizes.rows, self._networks.encoder.input_size, device=self._transfer.device
        )
        for lengths in batches:
            features = silence[: sum(lengths)]
            self.run(features, lengths, Wanted(embeds=True, ctc=True), StageClock(self._transfer.device))
        return len(batches)

    def run(
        self, features: Tensor, lengths: tuple[int, ...], wanted: Wanted, clock: StageClock
    ) -> NetworkOutputs:
        bucket = find_bucket(lengths, self._sizes.rows, self._sizes.longest)
        if bucket is None:
            return self._plain.run(features, lengths, wanted, clock)
        networks, buffers = self._networks, self._buffers
        layout = bucket.layout(lengths)
        buffers.features[: len(features)] = features
        frames = buffers.packing("frames", layout, self._transfer)

        def encode() -> None:
            states = networks.encoder(buffers.features[: bucket.rows], frames)
            buffers.states[: bucket.rows] = states

        self._executor(("encode", bucket), encode)
        clock.mark()
        adapted = hidden = compact = None
        if wanted.embeds:
            adapted = self._adapt("adapted", networks.adaptor, bucket, frames)
        clock.mark()
        if wanted.ctc and networks.ctc is not None and networks.head is not None:
            hidden = self._adapt("hidden", networks.ctc, bucket, frames)
            compact = self._compact(hidden)
        clock.mark()
        return NetworkOutputs(buffers.states[: bucket.rows], adapted, hidden, compact)

    def _adapt(self, name: str, adaptor: PackedAdaptor, bucket: Bucket, frames: Packing) -> Tensor:
        buffers, layout = self._buffers, frames.layout.stack(adaptor.k)
        stacks = frames if adaptor.k == 1 else buffers.packing(name, layout, self._transfer)
        out = buffers.rows[name][: layout.rows]

        def adapt() -> None:
            out.copy_(adaptor(buffers.states[: bucket.rows], frames, stacks))

        self._executor((name, bucket), adapt)
        return out

    def _compact(self, hidden: Tensor) -> CompactPosteriors:
        head, out = self._networks.head, self._buffers.compact
        assert head is not None and out is not None
        rows = len(hidden)
        found = CompactPosteriors(
            out.top_ids[:rows],
            out.top_log_probs[:rows],
            out.blank_log_probs[:rows],
            out.remainder_log_probs[:rows],
            out.blank_id,
        )

        def compact() -> None:
            made = head(hidden, self._top_k)
            found.top_ids.copy_(made.top_ids)
            found.top_log_probs.copy_(made.top_log_probs)
            found.blank_log_probs.copy_(made.blank_log_probs)
            found.remainder_log_probs.copy_(made.remainder_log_probs)

        self._executor(("compact", rows), compact)
        return found


@dataclass(frozen=True, slots=True)
class BufferSizes:
    """Frames of the largest batch that a bucket holds, and of the longest segment in it."""

    rows: int
    longest: int


@dataclass(frozen=True, slots=True, eq=False)
class _Buffers:
    """What bucket steps read and write; rows of the largest bucket, of which smaller ones use the first."""

    features: Tensor
    states: Tensor
    rows: dict[str, Tensor]
    tables: dict[str, Tensor]
    compact: CompactPosteriors | None

    @classmethod
    def of(cls, sizes: BufferSizes, networks: PackedNetworks, top_k: int, device: torch.device) -> _Buffers:
        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(*shape, dtype=dtype, device=device)

        adaptors = {"adapted": networks.adaptor}
        if networks.ctc is not None:
            adaptors["hidden"] = networks.ctc
        stacked = {name: sizes.rows // part.k + SLOTS[-1] for name, part in adaptors.items()}
        tables = {name: 3 * (rows + SLOTS[-1]) for name, rows in {"frames": sizes.rows, **stacked}.items()}
        compact = None
        if networks.head is not None:
            rows, k = stacked["hidden"], min(top_k, networks.head.vocab_size - 1)
            ids = zeros(rows, k, dtype=torch.int32)
            compact = CompactPosteriors(ids, zeros(rows, k), zeros(rows), zeros(rows), networks.head.blank_id)
        return cls(
            zeros(sizes.rows, networks.encoder.input_size),
            zeros(sizes.rows, networks.encoder.output_size),
            {name: zeros(stacked[name], part.output_size) for name, part in adaptors.items()},
            {name: zeros(size, dtype=torch.int32) for name, size in tables.items()},
            compact,
        )

    def packing(self, name: str, layout: Layout, transfer: Transfer) -> Packing:
        """The layout in its place on the device."""
        table = self.tables[name][: layout.table_size]
        table.copy_(transfer.table(layout.table()))
        return Packing.of(layout, table)
