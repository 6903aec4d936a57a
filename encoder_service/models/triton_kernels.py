"""Triton kernels of the packed networks; callers go through `kernels`, which has the same steps in torch."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from encoder_service.models.packing import Packing

_ROWS = 4
"""Rows in one program of a norm: neighbours share the memory's loads through the first-level cache."""


@triton.jit  # type: ignore[untyped-decorator]
def _norm_store(  # type: ignore[no-untyped-def]
    total, out, weight, bias, place, column, live, real, eps, SIZE: tl.constexpr
) -> None:
    mean = tl.sum(total, axis=1)[:, None] / SIZE
    centred = tl.where(real[None, :], total - mean, 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred, axis=1)[:, None] / SIZE + eps)
    gain = tl.load(weight + column, mask=real, other=0.0)[None, :]
    offset = tl.load(bias + column, mask=real, other=0.0)[None, :]
    normed = centred * scale * gain + offset
    tl.store(out + place, normed.to(out.dtype.element_ty), mask=live)


@triton.jit  # type: ignore[untyped-decorator]
def _add_norm_kernel(  # type: ignore[no-untyped-def]
    x, delta, out, weight, bias, rows, eps, SIZE: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr
) -> None:
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)
    real = column < SIZE
    live = (row < rows)[:, None] & real[None, :]
    place = row[:, None] * SIZE + column[None, :]
    total = tl.load(x + place, mask=live, other=0.0) + tl.load(delta + place, mask=live, other=0.0)
    tl.store(x + place, total, mask=live)
    _norm_store(total, out, weight, bias, place, column, live, real, eps, SIZE)


@triton.jit  # type: ignore[untyped-decorator]
def _add_memory_norm_kernel(  # type: ignore[no-untyped-def]
    x, projected, v, v_stride, taps, starts, ends, out, weight, bias, rows, eps,
    SIZE: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
    TAPS: tl.constexpr, LEFT: tl.constexpr, ADDS: tl.constexpr,
) -> None:  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)
    real = column < SIZE
    known = row < rows
    live = known[:, None] & real[None, :]
    place = row[:, None] * SIZE + column[None, :]
    total = tl.load(projected + place, mask=live, other=0.0).to(tl.float32)
    if ADDS:
        total += tl.load(x + place, mask=live, other=0.0)
    total += tl.load(v + row[:, None] * v_stride + column[None, :], mask=live, other=0.0).to(tl.float32)
    first = tl.load(starts + row, mask=known, other=0)
    last = tl.load(ends + row, mask=known, other=0)
    for tap in tl.static_range(TAPS):
        near = row + (tap - LEFT)
        inside = ((near >= first) & (near < last))[:, None] & real[None, :]
        value = tl.load(v + near[:, None] * v_stride + column[None, :], mask=inside, other=0.0)
        factor = tl.load(taps + tap * SIZE + column, mask=real, other=0.0)[None, :]
        total += value.to(tl.float32) * factor.to(tl.float32)
    tl.store(x + place, total, mask=live)
    _norm_store(total, out, weight, bias, place, column, live, real, eps, SIZE)


@triton.jit  # type: ignore[untyped-decorator]
def _group_peaks_kernel(  # type: ignore[no-untyped-def]
    logits, stride, bias, peaks, sums, groups, WIDTH: tl.constexpr, BLOCK: tl.constexpr
) -> None:
    row = tl.program_id(0).to(tl.int64)
    group = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    live = group < groups
    column = group[:, None] * WIDTH + tl.arange(0, WIDTH)[None, :]
    value = tl.load(logits + row * stride + column, mask=live[:, None], other=0.0).to(tl.float32)
    value += tl.load(bias + column, mask=live[:, None], other=0.0)
    peak = tl.max(value, axis=1)
    floor = tl.where(peak == float("-inf"), 0.0, peak)
    total = tl.sum(tl.exp(value - floor[:, None]), axis=1)
    tl.store(peaks + row * groups + group, peak, mask=live)
    tl.store(sums + row * groups + group, floor + tl.log(total), mask=live)


@triton.jit  # type: ignore[untyped-decorator]
def _scaled_relu_kernel(  # type: ignore[no-untyped-def]
    x, stride, scale, shift, out, rows, size, BLOCK: tl.constexpr, ROWS: tl.constexpr
) -> None:
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    real = column < size
    live = (row < rows)[:, None] & real[None, :]
    value = tl.load(x + row[:, None] * stride + column[None, :], mask=live, other=0.0).to(tl.float32)
    factor = tl.load(scale + column, mask=real, other=0.0)[None, :]
    offset = tl.load(shift + column, mask=real, other=0.0)[None, :]
    value = tl.maximum(value * factor + offset, 0.0)
    tl.store(out + row[:, None] * size + column[None, :], value.to(out.dtype.element_ty), mask=live)


@triton.jit(do_not_specialize=["rows", "frames", "segments", "segment", "dilation"])  # type: ignore[untyped-decorator]
def _masked_taps_kernel(  # type: ignore[no-untyped-def]
    taps, mask, out, stride, rows, frames, segments, segment, dilation,
    SIZE: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
) -> None:  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)[None, :]
    live = (row < rows)[:, None] & (column < SIZE)
    clip, place = row // frames, row % frames
    own = taps + row[:, None] * (3 * SIZE) + column
    reach = dilation * 3 * SIZE
    before = live & (place >= dilation)[:, None]
    after = live & (place + dilation < frames)[:, None]
    total = tl.load(own + SIZE, mask=live, other=0.0).to(tl.float32)
    total += tl.load(own - reach, mask=before, other=0.0).to(tl.float32)
    total += tl.load(own + reach + 2 * SIZE, mask=after, other=0.0).to(tl.float32)
    where = (clip * segments + place // segment)[:, None] * SIZE + column
    total *= tl.sigmoid(tl.load(mask + where, mask=live, other=0.0).to(tl.float32))
    tl.store(out + row[:, None] * stride + column, total.to(out.dtype.element_ty), mask=live)


def _block(size: int) -> dict[str, Any]:
    return {"SIZE": size, "BLOCK": triton.next_power_of_2(size), "ROWS": _ROWS}


def add_norm(x: Tensor, delta: Tensor, norm: nn.LayerNorm, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    rows, size = x.shape
    out = torch.empty_like(x, dtype=dtype)
    _add_norm_kernel[(triton.cdiv(rows, _ROWS),)](
        x, delta.contiguous(), out, norm.weight, norm.bias, rows, norm.eps, **_block(size)
    )
    return x, out


def add_memory_norm(
    x: Tensor | None,
    projected: Tensor,
    v: Tensor,
    taps: Tensor,
    left: int,
    packing: Packing,
    norm: nn.LayerNorm,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    rows, size = projected.shape
    total = torch.empty_like(projected, dtype=torch.float32) if x is None else x
    out = torch.empty_like(projected, dtype=dtype)
    _add_memory_norm_kernel[(triton.cdiv(rows, _ROWS),)](
        total, projected.contiguous(), v, v.stride(0), taps, packing.starts, packing.ends, out,
        norm.weight, norm.bias, rows, norm.eps, TAPS=taps.shape[0], LEFT=left, ADDS=x is not None,
        **_block(size),
    )  # fmt: skip
    return total, out


def group_peaks(logits: Tensor, bias: Tensor, width: int) -> tuple[Tensor, Tensor]:
    rows, columns = logits.shape
    groups, block = columns // width, 32
    peaks = logits.new_empty(rows, groups, dtype=torch.float32)
    sums = torch.empty_like(peaks)
    _group_peaks_kernel[(rows, triton.cdiv(groups, block))](
        logits, logits.stride(0), bias, peaks, sums, groups, WIDTH=width, BLOCK=block
    )
    return peaks, sums


def scaled_relu(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    rows, size = x.shape
    out = x.new_empty(rows, size)
    block, many = 128, 8  # constants, so that one compilation serves the 29 sizes of CAM++
    _scaled_relu_kernel[(triton.cdiv(rows, many), triton.cdiv(size, block))](
        x, x.stride(0), scale, shift, out, rows, size, BLOCK=block, ROWS=many
    )
    return out


def masked_taps(taps: Tensor, mask: Tensor, segment: int, dilation: int, out: Tensor) -> None:
    rows, size = out.shape
    clips, segments, _ = mask.shape
    many = {**_block(size), "ROWS": 32}
    _masked_taps_kernel[(triton.cdiv(rows, many["ROWS"]),)](
        taps, mask, out, out.stride(0), rows, rows // clips, segments, segment, dilation, **many
    )
