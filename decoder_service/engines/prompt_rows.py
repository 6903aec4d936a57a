"""Prompts as the engines' models take them: rows in the engine's dtype, bfloat16 copied as it came."""

from __future__ import annotations

import torch
from torch import Tensor

from decoder_service.engines.base import Prompt
from tandem.tensor.v1 import tensor_pb2


def prompt_rows(prompt: Prompt, hidden_size: int, dtype: torch.dtype) -> Tensor:
    """[len(prompt), hidden_size] on the host: embeddings in place, zeros where a position holds an id."""
    rows = torch.zeros((len(prompt), hidden_size), dtype=dtype)
    begin = 0
    for part in prompt.parts:
        end = begin + len(part)
        if not isinstance(part, tuple):
            if part.dtype == tensor_pb2.DATA_TYPE_BFLOAT16 and dtype is torch.bfloat16:
                rows.view(torch.uint16).numpy()[begin:end] = part.array
            else:
                rows[begin:end] = torch.tensor(part.float32())
        begin = end
    return rows
