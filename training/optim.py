"""Flat parameter storage and its optimiser: Muon for hidden matrices, Adam for the rest, averaged weights.

Everything is a handful of kernels on contiguous buffers and reads its rates from device scalars, so that a
whole update can sit in a CUDA graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor, nn

from encoder_service.models.layers import LayerNorm
from training.qwen3 import RMSNorm

ADAM_BETAS = (0.9, 0.98)
MOMENTUM = 0.95
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
STATE = ("master", "momentum", "first", "second", "ema", "steps")


@dataclass(frozen=True)
class Hyper:
    """Rates that stay put; the learning rate is a schedule's."""

    weight_decay: float = 0.05
    clip: float = 1.0
    ema_decay: float = 0.998
    muon: bool = True


def orthogonalise(g: Tensor, rounds: int = 5) -> Tensor:
    """Newton-Schulz towards the nearest semi-orthogonal matrices of g [N, R, C] (Muon, Jordan 2024)."""
    a, b, c = NEWTON_SCHULZ
    x = g.bfloat16() if g.is_cuda else g
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(rounds):
        s = x @ x.mT
        x = a * x + (b * s + c * (s @ s)) @ x
    out: Tensor = x.mT if tall else x
    return out.float()


class FlatOptimizer:
    """Owns a model's parameters: matrices in `dtype` for compute, all in float32 as the master copy."""

    def __init__(self, model: nn.Module, dtype: torch.dtype, hyper: Hyper) -> None:
        self.hyper = hyper
        low, self._full = self._sort(model, hyper)
        named = [*low, *self._full]
        device = named[0][1].device
        sizes = [p.numel() for _, p in named]
        total, self.n_low = sum(sizes), sum(p.numel() for _, p in low)
        self.master = torch.cat([p.detach().float().reshape(-1) for _, p in named])
        self.low = self.master[: self.n_low].to(dtype, copy=True)
        self.grad_low = torch.zeros_like(self.low)
        self.grad_full = torch.zeros(total - self.n_low, device=device)
        self.grad = torch.zeros(total, device=device)
        self.n_muon = sum(p.numel() for n, p in low if hyper.muon and self._hidden(n, p))
        self.momentum = torch.zeros(self.n_muon, device=device)
        self.first = torch.zeros(total - self.n_muon, device=device)
        self.second = torch.zeros_like(self.first)
        self.ema = self.master.clone()
        self.steps = torch.zeros((), device=device)
        self.lr = torch.zeros((), device=device)
        self._groups: list[tuple[int, int, tuple[int, ...]]] = []
        self._bind(named, sizes)

    @staticmethod
    def _hidden(name: str, p: Tensor) -> bool:
        return p.dim() == 2 and not any(key in name for key in ("embed_tokens", "ctc_lo", "mid_head"))

    def _sort(
        self, model: nn.Module, hyper: Hyper
    ) -> tuple[list[tuple[str, nn.Parameter]], list[tuple[str, nn.Parameter]]]:
        norms = {id(p) for m in model.modules() if isinstance(m, LayerNorm | RMSNorm) for p in m.parameters()}
        named = list(model.named_parameters())
        muon = [(n, p) for n, p in named if id(p) not in norms and hyper.muon and self._hidden(n, p)]
        muon.sort(key=lambda item: ("q_k_v" in item[0], tuple(item[1].shape)))
        taken = {id(p) for _, p in muon}
        other = [(n, p) for n, p in named if id(p) not in norms | taken]
        return [*muon, *other], [(n, p) for n, p in named if id(p) in norms]

    def _bind(self, named: list[tuple[str, nn.Parameter]], sizes: list[int]) -> None:
        """Points every parameter and its gradient into the flat buffers; notes runs of like matrices."""
        self.names = [(n, tuple(p.shape)) for n, p in named]
        offset = 0
        shapes = []
        for (name, p), size in zip(named, sizes, strict=True):
            if offset < self.n_low:
                home, grad, at = self.low, self.grad_low, offset
            else:
                home, grad, at = self.master, self.grad_full, offset - self.n_low
            place = offset
            p.data = home[place : place + size].view(p.shape)
            p.grad = grad[at : at + size].view(p.shape)
            if offset < self.n_muon:
                parts = 3 if "q_k_v" in name else 1
                shapes += [
                    (offset + i * size // parts, (p.shape[0] // parts, p.shape[1])) for i in range(parts)
                ]
            offset += size
        for shape, run in groupby(shapes, key=lambda item: item[1]):
            items = list(run)
            self._groups.append((items[0][0], len(items), shape))

    def zero_grad(self) -> None:
        self.grad_low.zero_()
        self.grad_full.zero_()

    @torch.no_grad()
    def step(self) -> None:
        """One update from the gathered gradients; a non-finite gradient leaves the weights as they are."""
        self.steps += 1
        self.grad[: self.n_low].copy_(self.grad_low)
        self.grad[self.n_low :].copy_(self.grad_full)
        norm = self.grad.norm()
        scale = torch.where(norm.isfinite(), (self.hyper.clip / (norm + 1e-6)).clamp_max(1.0), 0.0)
        self.grad.nan_to_num_(0.0, 0.0, 0.0).mul_(scale)
        self._muon()
        self._adam()
        self.low.copy_(self.master[: self.n_low])
        decay = torch.minimum(
            (1 + self.steps) / (10 + self.steps), torch.full_like(self.steps, self.hyper.ema_decay)
        )
        self.ema.lerp_(self.master, 1 - decay)

    def _muon(self) -> None:
        if not self.n_muon:
            return
        g = self.grad[: self.n_muon]
        self.momentum.lerp_(g, 1 - MOMENTUM)
        blend = g.lerp(self.momentum, MOMENTUM)
        weights = self.master[: self.n_muon]
        weights.mul_(1 - self.lr * self.hyper.weight_decay)
        for offset, count, (rows, columns) in self._groups:
            span = slice(offset, offset + count * rows * columns)
            update = orthogonalise(blend[span].view(count, rows, columns)).reshape(-1)
            weights[span].sub_(update * (self.lr * 0.2 * max(rows, columns) ** 0.5))

    def _adam(self) -> None:
        g = self.grad[self.n_muon :]
        b1, b2 = ADAM_BETAS
        self.first.lerp_(g, 1 - b1)
        self.second.lerp_(g.square(), 1 - b2)
        root = (self.second / (1 - b2**self.steps)).sqrt().add_(1e-8)
        self.master[self.n_muon :].sub_(self.first / root * (self.lr / (1 - b1**self.steps)))

    def use(self, flat: Tensor) -> None:
        """Computes with `flat` ([total] float32: the averaged weights, say).

        Norm weights live in the master copy: swap them back with `use` of a saved clone.
        """
        self.low.copy_(flat[: self.n_low])
        self.master[self.n_low :].copy_(flat[self.n_low :])

    def tensors(self, flat: Tensor) -> dict[str, Tensor]:
        """`flat` by parameter name."""
        out, offset = {}, 0
        for name, shape in self.names:
            size = int(torch.Size(shape).numel())
            out[name] = flat[offset : offset + size].view(shape)
            offset += size
        return out

    def state(self) -> dict[str, Tensor]:
        return {key: getattr(self, key) for key in STATE}

    def load(self, state: dict[str, Tensor]) -> None:
        for key in STATE:
            getattr(self, key).copy_(state[key])
        self.low.copy_(self.master[: self.n_low])
