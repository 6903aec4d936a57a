"""One optimiser step as two CUDA graphs around the CTC loss (whose kernels want lengths from the host).

On a CPU the same functions run eagerly.
"""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass, field

import torch
from torch import Tensor

from training.batches import Batch, Bucket
from training.model import Inputs, Store, TrainingModel, gather
from training.optim import FlatOptimizer

MID_WEIGHT = 0.3
WARM_UPS = 2
STATS = ("ctc", "mid", "llm")


@dataclass
class Shape:
    """The fixed tensors of one bucket, and its captured graphs."""

    bucket: Bucket
    spec: Tensor
    log_probs: Tensor | None = None
    llm: Tensor | None = None
    targets: Tensor | None = None
    grad: Tensor | None = None
    graphs: list[torch.cuda.CUDAGraph] = field(default_factory=list)


class Stepper:
    """Runs training steps; `stats` sums the losses per token since it was last zeroed."""

    def __init__(self, model: TrainingModel, optimizer: FlatOptimizer, store: Store, blank: int) -> None:
        self.model, self.optimizer, self.store, self.blank = model, optimizer, store, blank
        device = store.frames.device
        self.cuda = device.type == "cuda"
        self.strength = torch.zeros((), device=device)
        self.llm_weight = torch.zeros((), device=device)
        self.stats = torch.zeros(len(STATS), device=device)
        self._params = [p for p in model.parameters()]
        self._shapes: dict[Bucket, Shape] = {}
        self._pool = torch.cuda.graph_pool_handle() if self.cuda else None

    def prepare(self, batches: list[Batch]) -> None:
        """Captures the graphs of each batch's bucket; the weights are left as they were.

        A bucket whose capture fails is run eagerly, which is slower and says so.
        """
        if not self.cuda:
            return
        saved = {k: v.clone() for k, v in self.optimizer.state().items()}
        for batch in batches:
            begin = time.time()
            try:
                self._capture(batch)
                print(f"captured {batch.bucket} in {time.time() - begin:.1f} s", flush=True)
            except RuntimeError as error:
                self._shapes[batch.bucket] = self._new_shape(batch.bucket)
                print(f"NOT captured, running eagerly: {batch.bucket}: {error}", flush=True)
                traceback.print_exc()
        self.optimizer.load(saved)
        self.stats.zero_()

    def run(self, batch: Batch) -> None:
        shape = self._shapes.get(batch.bucket) or self._new_shape(batch.bucket)
        spec = torch.from_numpy(batch.spec)
        shape.spec.copy_(spec.pin_memory() if self.cuda else spec, non_blocking=True)
        if shape.graphs:
            shape.graphs[0].replay()
            self._ctc(shape, batch)
            shape.graphs[1].replay()
            return
        self._forward(shape)
        self._ctc(shape, batch)
        self._backward(shape)

    def _new_shape(self, bucket: Bucket) -> Shape:
        spec = torch.zeros(bucket.rows, bucket.columns, dtype=torch.long, device=self.store.frames.device)
        self._shapes[bucket] = Shape(bucket, spec)
        return self._shapes[bucket]

    def _capture(self, batch: Batch) -> None:
        for _ in range(WARM_UPS):
            self.run(batch)
        shape = self._shapes[batch.bucket]
        torch.cuda.synchronize()
        first, second = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        stream = torch.cuda.current_stream()
        with torch.cuda.graph(first, pool=self._pool, stream=stream):
            self._forward(shape)
        first.replay()
        self._ctc(shape, batch)
        torch.cuda.synchronize()
        with torch.cuda.graph(second, pool=self._pool, stream=stream):
            self._backward(shape)
        assert shape.log_probs is not None
        shape.log_probs = shape.log_probs.detach()
        shape.graphs = [first, second]
        second.replay()
        torch.cuda.synchronize()

    def _forward(self, shape: Shape) -> None:
        downsample = self.model.shape.downsample
        inputs: Inputs = gather(self.store, shape.spec, shape.bucket, downsample, self.strength)
        shape.log_probs, shape.llm = self.model(inputs, shape.bucket, self.store.suffix[1])
        shape.targets = torch.cat((inputs.targets, inputs.targets))

    def _ctc(self, shape: Shape, batch: Batch) -> None:
        """Both CTC losses per target token, and their gradient into shape.grad."""
        assert shape.log_probs is not None and shape.targets is not None
        leaf = shape.log_probs.detach().requires_grad_()
        frames = torch.from_numpy(batch.frames).repeat(2)
        sizes = torch.from_numpy(batch.targets).repeat(2)
        losses = torch.ctc_loss(leaf, shape.targets, frames, sizes, self.blank, 0, True)
        final, mid = losses.view(2, -1).sum(1) / float(batch.targets.sum())
        (grad,) = torch.autograd.grad(final + MID_WEIGHT * mid, leaf)
        if shape.grad is None:
            shape.grad = torch.empty_like(grad)
        shape.grad.copy_(grad)
        self.stats[0] += final.detach()
        self.stats[1] += mid.detach()

    def _backward(self, shape: Shape) -> None:
        assert shape.log_probs is not None and shape.llm is not None
        weighted = shape.llm * self.llm_weight
        grads = torch.autograd.grad(
            [shape.log_probs, weighted], self._params, [shape.grad, torch.ones_like(weighted)]
        )
        for dtype in {g.dtype for g in grads}:
            pairs = [(g, p.grad) for p, g in zip(self._params, grads, strict=True) if g.dtype == dtype]
            torch._foreach_copy_([home for _, home in pairs if home is not None], [g for g, _ in pairs])
        self.stats[2] += shape.llm.detach()
        self.optimizer.step()
