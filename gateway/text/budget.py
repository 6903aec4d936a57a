"""How many tokens a segment of a given length may take: speech has a speed limit, loops do not."""

from __future__ import annotations

import math

# Fast speech is about 7 Chinese characters or 5 English words a second; a small vocabulary spends up
# to three tokens on a word.
DEFAULT_TOKENS_PER_SECOND = 16.0
MIN_TOKENS = 32
MAX_TOKENS = 1024


def output_budget(
    seconds: float,
    *,
    tokens_per_second: float = DEFAULT_TOKENS_PER_SECOND,
    ceiling: int = MAX_TOKENS,
) -> int:
    """max_new_tokens for a segment of `seconds`, at least 32 unless `ceiling` is lower."""
    if seconds < 0 or ceiling < 1:
        raise ValueError(f"seconds {seconds} and ceiling {ceiling} must be positive")
    return min(ceiling, MIN_TOKENS + math.ceil(seconds * tokens_per_second))
