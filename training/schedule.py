"""What changes as training goes on, as functions of the share of the planned time that has passed."""

from __future__ import annotations

import math

from training.batches import Mix

WARM_UP_STEPS = 250
FINAL_SHARE = 0.88


def rate(share: float, step: int, peak: float, warm_up: int = WARM_UP_STEPS) -> float:
    """Linear warm-up by steps, then a cosine that reaches nearly zero when the time is up."""
    return (
        peak
        * min(1.0, (step + 1) / warm_up)
        * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(share, 1.0))))
    )


def mix(share: float) -> Mix:
    """Short clean clips first (CTC leaves its plateau on them), everything later, mostly clean at the end."""
    if share < 0.05:
        return Mix((1.0, 0.0, 0.0, 0.0), 64, 0.0)
    if share < 0.15:
        return Mix((1.0, 0.7, 0.3, 0.1), 160, 0.05)
    if share < FINAL_SHARE:
        return Mix((0.9, 1.0, 0.8, 0.8), 160, 0.25)
    return Mix((1.0, 0.3, 0.2, 0.15), 160, 0.25)


def masking(share: float) -> float:
    """Strength of the feature masking."""
    if share < 0.05:
        return 0.0
    if share < 0.15:
        return 0.4
    return 1.0 if share < FINAL_SHARE else 0.3


def llm_weight(share: float) -> float:
    """The CTC loss shapes the encoder first."""
    return 0.2 + 0.8 * min(1.0, share / 0.12)
