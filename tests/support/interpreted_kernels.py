"""Tests of the Triton kernels for a process that interprets them (TRITON_INTERPRET=1); see test_kernels."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from encoder_service.models import kernels, triton_kernels
from encoder_service.models.packing import Layout, Packing

LENGTHS = (1, 2, 30, 17)
ROWS = sum(LENGTHS)


@pytest.fixture(scope="module")
def interpreted() -> ModuleType:
    return triton_kernels


def random_norm(size: int) -> nn.LayerNorm:
    norm = nn.LayerNorm(size, eps=1e-5).requires_grad_(False)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm


def close(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor], rows: int) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours[:rows], theirs[:rows], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [64, 48])
@pytest.mark.parametrize("left", [5, 7])
@pytest.mark.parametrize("adds", [False, True])
def test_memory_of_segments_with_rows_to_spare(
    interpreted: ModuleType, size: int, left: int, adds: bool
) -> None:
    torch.manual_seed(0)
    layout = Layout(LENGTHS, 64, 16, 64)
    packing = Packing.of(layout, torch.from_numpy(layout.table()))
    v = torch.randn(64, 3 * size)[:, 2 * size :]
    v[ROWS:] = torch.nan  # what attention leaves on rows of no segment
    x, projected, taps = torch.randn(64, size), torch.randn(64, size), torch.randn(11, size)
    norm = random_norm(size)
    found, expected = (
        step(x.clone() if adds else None, projected, v, taps, left, packing, norm, torch.float32)
        for step in (interpreted.add_memory_norm, kernels.add_memory_norm)
    )
    close(found, expected, ROWS)


@pytest.mark.parametrize("size", [64, 48])
def test_addition_and_norm(interpreted: ModuleType, size: int) -> None:
    torch.manual_seed(0)
    x, delta, norm = torch.randn(10, size), torch.randn(10, size), random_norm(size)
    found, expected = (
        step(x.clone(), delta, norm, torch.float32) for step in (interpreted.add_norm, kernels.add_norm)
    )
    close(found, expected, 10)


@pytest.mark.filterwarnings("ignore:divide by zero")
def test_peaks_of_groups_with_and_without_entries(interpreted: ModuleType) -> None:
    torch.manual_seed(0)
    logits, bias = torch.randn(5, 64 * 40) * 4, torch.randn(64 * 40)
    bias[3] = bias[-64:] = -torch.inf
    close(interpreted.group_peaks(logits, bias, 64), kernels.group_peaks(logits, bias, 64), 5)


@pytest.mark.parametrize("size", [64, 160])
def test_scale_and_relu_of_some_columns(interpreted: ModuleType, size: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(10, 200)[:, :size]
    scale, shift = torch.randn(size), torch.randn(size)
    found, expected = (step.scaled_relu(x, scale, shift) for step in (interpreted, kernels))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("frames", "dilation"), [(37, 1), (37, 2), (2, 2), (1, 1)])
def test_masked_taps_stay_within_their_clip(interpreted: ModuleType, frames: int, dilation: int) -> None:
    torch.manual_seed(0)
    taps, mask = torch.randn(3 * frames, 3 * 24), torch.randn(3, -(-frames // 10), 24)
    found, expected = torch.zeros(3 * frames, 40), torch.zeros(3 * frames, 40)
    interpreted.masked_taps(taps, mask, 10, dilation, found[:, 8:32])
    kernels.masked_taps(taps, mask, 10, dilation, expected[:, 8:32])
    torch.testing.assert_close(found, expected)
    x = torch.randn(3, 16, frames)
    conv = torch.nn.Conv1d(16, 24, 3, padding=dilation, dilation=dilation, bias=False)
    products = x.transpose(1, 2).flatten(0, 1) @ conv.weight.permute(2, 0, 1).flatten(0, 1).T
    kernels.masked_taps(products, torch.full((3, -(-frames // 10), 24), 50.0), 10, dilation, found[:, 8:32])
    torch.testing.assert_close(found[:, 8:32].view(3, frames, 24).mT, conv(x), rtol=1e-4, atol=1e-5)
