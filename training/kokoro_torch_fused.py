# mypy: disable-error-code="untyped-decorator,no-untyped-def"
"""AdaIN + snake and shortcut + bias on channels-last tensors: Triton on CUDA, plain PyTorch elsewhere.

Both spellings agree (`self_check`); a GPU without a working Triton falls back to PyTorch.
"""

from __future__ import annotations

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None

EPS = 1e-5
SPLITS = 64
use_triton = triton is not None and torch.cuda.is_available()

if triton is not None:

    @triton.jit(do_not_specialize=["t", "splits", "chunk"])
    def _sums(x, out, t, splits, chunk, C: tl.constexpr, BLOCK: tl.constexpr):
        """Sum and sum of squares over one stretch of time of one row: out [b, splits, 2, C]."""
        row, part = tl.program_id(0), tl.program_id(1)
        cols = tl.arange(0, C)
        total = tl.zeros([BLOCK, C], tl.float32)
        square = tl.zeros([BLOCK, C], tl.float32)
        base = x + row.to(tl.int64) * t * C
        for start in range(0, chunk, BLOCK):
            at = part * chunk + start + tl.arange(0, BLOCK)
            inside = at < t
            v = tl.load(base + at[:, None] * C + cols[None, :], mask=inside[:, None], other=0.0)
            v = v.to(tl.float32)
            total += v
            square += v * v
        where = out + (row * splits + part) * 2 * C + cols
        tl.store(where, tl.sum(total, 0))
        tl.store(where + C, tl.sum(square, 0))

    @triton.jit(do_not_specialize=["t"])
    def _snake(x, y, scale, shift, alpha, t, C: tl.constexpr, BLOCK: tl.constexpr):
        """y = v + sin(alpha v)^2 / alpha with v = x * scale + shift."""
        row, part = tl.program_id(0), tl.program_id(1)
        cols = tl.arange(0, C)
        at = part * BLOCK + tl.arange(0, BLOCK)
        where = row.to(tl.int64) * t * C + at[:, None] * C + cols[None, :]
        inside = (at < t)[:, None]
        a = tl.load(alpha + cols)[None, :]
        v = tl.load(x + where, mask=inside, other=0.0).to(tl.float32)
        v = v * tl.load(scale + row * C + cols)[None, :] + tl.load(shift + row * C + cols)[None, :]
        s = tl.sin(a * v)
        tl.store(y + where, (v + s * s / a).to(y.dtype.element_ty), mask=inside)

    @triton.jit(do_not_specialize=["n"])
    def _shortcut(h, x, bias, y, n, C: tl.constexpr, BLOCK: tl.constexpr):
        at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        inside = at < n
        v = tl.load(h + at, mask=inside, other=0.0).to(tl.float32)
        v += tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
        tl.store(y + at, (v + tl.load(bias + at % C)).to(y.dtype.element_ty), mask=inside)


def adain_snake(x: Tensor, style: Tensor, alpha: Tensor) -> Tensor:
    """x [b, t, c] of any float type, kept; style [b, 2 c] float32 (scale - 1, then shift); alpha [c]."""
    gamma, beta = style.chunk(2, 1)
    if use_triton and x.is_cuda:
        return _adain_snake_triton(x, gamma, beta, alpha)
    v = x.float()
    var, mean = torch.var_mean(v, 1, correction=0)
    scale = (1 + gamma) * torch.rsqrt(var + EPS)
    v = v * scale[:, None] + (beta - mean * scale)[:, None]
    return (v + torch.sin(alpha * v) ** 2 / alpha).to(x.dtype)


def _adain_snake_triton(x: Tensor, gamma: Tensor, beta: Tensor, alpha: Tensor) -> Tensor:
    b, t, c = x.shape
    x = x.contiguous()
    block = max(1, 4096 // c)
    splits = max(1, min(SPLITS, triton.cdiv(t, 4 * block)))
    chunk = triton.cdiv(triton.cdiv(t, splits), block) * block
    sums = torch.empty(b, splits, 2, c, device=x.device)
    _sums[(b, splits)](x, sums, t, splits, chunk, C=c, BLOCK=block, num_warps=8)
    mean, square = (sums.sum(1) / t).unbind(1)
    scale = (1 + gamma) * torch.rsqrt((square - mean * mean).clamp(min=0) + EPS)
    shift = beta - mean * scale
    y = torch.empty_like(x)
    _snake[(b, triton.cdiv(t, block))](x, y, scale, shift, alpha, t, C=c, BLOCK=block, num_warps=8)
    return y


def residual(h: Tensor, x: Tensor, bias: Tensor) -> Tensor:
    """h + x + bias over [b, t, c], in x's type."""
    if use_triton and x.is_cuda:
        h, x = h.contiguous(), x.contiguous()
        y = torch.empty_like(x)
        block = 4096
        _shortcut[(triton.cdiv(x.numel(), block),)](
            h, x, bias, y, x.numel(), C=x.shape[-1], BLOCK=block, num_warps=8
        )
        return y
    return ((h.float() + bias) + x.float()).to(x.dtype)


def self_check(device: torch.device) -> float:
    """Largest relative difference of the two spellings on random data; above 0.01 Triton is switched off."""
    global use_triton
    worst = 0.0
    if not use_triton:
        return worst
    torch.manual_seed(0)
    for c, t in ((128, 4807), (256, 1003)):
        x = torch.randn(3, t, c, device=device, dtype=torch.float16) * 3 + 1
        h, style = torch.randn_like(x), torch.randn(3, 2 * c, device=device)
        alpha, bias = torch.rand(c, device=device) + 0.5, torch.randn(c, device=device)
        try:
            fast = adain_snake(x, style, alpha), residual(h, x, bias)
            use_triton = False
            slow = adain_snake(x, style, alpha), residual(h, x, bias)
        except Exception as problem:  # a Triton that cannot compile here: report it and go on without
            print("triton is off:", repr(problem)[:300], flush=True)
            use_triton = False
            return float("inf")
        for a, b in zip(fast, slow, strict=True):
            worst = max(worst, float(((a.float() - b.float()).abs() / (1 + b.float().abs())).max()))
        use_triton = True
    use_triton = worst < 0.01
    return worst
