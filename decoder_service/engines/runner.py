"""Runs a causal language model over batches: prefill of new rows, one decoding step for running ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, DynamicCache

from decoder_service.engines.base import GenerationRequest, TokenDelta
from decoder_service.engines.batch import Batch, Row, left_padded_mask
from decoder_service.engines.model_facts import ModelFacts
from decoder_service.engines.prompt_rows import prompt_rows
from decoder_service.engines.sampling import Chooser, choose_tokens, log_probs_of
from decoder_service.engines.settings import TORCH_NAMES, DtypeName, EngineSettings

MAX_PREFILL_POSITIONS = 8192
"""Rows times longest prompt in one prefill: bounds its memory and how long running rows wait for it."""


class Runner:
    """The model on its device. Not thread-safe: one thread owns it."""

    def __init__(self, settings: EngineSettings, facts: ModelFacts) -> None:
        self.facts = facts
        self.device = torch.device(pick_device(settings.device))
        self.dtype = pick_dtype(settings.dtype, self.device)
        self._log_probs = settings.log_probs
        model: Any = AutoModelForCausalLM.from_pretrained(
            settings.model, dtype=self.dtype, local_files_only=True
        )
        self._model = model.to(self.device).eval().requires_grad_(False)
        self._embed = self._model.get_input_embeddings()

    def prefill_size(self, prompt_lengths: Sequence[int]) -> int:
        """How many of these requests, in order, one prefill takes: at least one."""
        longest = 0
        for count, length in enumerate(prompt_lengths):
            longest = max(longest, length)
            if count and (count + 1) * longest > MAX_PREFILL_POSITIONS:
                return count
        return len(prompt_lengths)

    @torch.inference_mode()
    def prefill(self, requests: Sequence[GenerationRequest]) -> tuple[Batch, list[TokenDelta]]:
        """A batch of new rows and the first token of each."""
        rows = [self._row(request) for request in requests]
        lengths = [row.length for row in rows]
        embeddings = self._embed_prompts(requests, max(lengths))
        mask = left_padded_mask(lengths, max(lengths), self.device)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        batch = Batch(rows, DynamicCache(), torch.zeros(0))
        logits = self._forward(batch, mask, positions, inputs_embeds=embeddings)
        return batch, self._advance(batch, logits)

    @torch.inference_mode()
    def decode(self, batch: Batch) -> list[TokenDelta]:
        """One more token of every row."""
        logits = self._forward(
            batch, batch.attention_mask(), batch.positions(), input_ids=batch.last[:, None]
        )
        for row in batch.rows:
            row.length += 1
        return self._advance(batch, logits)

    def _row(self, request: GenerationRequest) -> Row:
        sampling = request.sampling
        stop = frozenset() if sampling.ignore_eos else self.facts.eos_token_ids | sampling.stop_token_ids
        seen = request.prompt.token_ids()
        chooser = Chooser(sampling, seen, self.facts.vocab_size, self.device)
        return Row(request, chooser, stop, len(request.prompt))

    def _embed_prompts(self, requests: Sequence[GenerationRequest], width: int) -> Tensor:
        """[B, width, hidden] in the model's dtype, left-padded with zeros."""
        shape = (len(requests), width, self.facts.hidden_size)
        batch = torch.zeros(shape, dtype=self.dtype, device=self.device)
        for row, request in enumerate(requests):
            prompt = request.prompt
            ids = torch.tensor(prompt.token_ids(), device=self.device)
            is_token = torch.tensor(prompt.is_token(), device=self.device)[:, None]
            given = prompt_rows(prompt, self.facts.hidden_size, self.dtype).to(self.device)
            batch[row, width - len(prompt) :] = torch.where(is_token, self._embed(ids), given)
        return batch

    def _forward(self, batch: Batch, mask: Tensor, positions: Tensor, **inputs: Tensor) -> Tensor:
        """Float32 logits [B, vocab] of the last position; the cache grows by the new positions."""
        output = self._model(
            **inputs,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=batch.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = output.logits[:, -1].float()
        return logits

    def _advance(self, batch: Batch, logits: Tensor) -> list[TokenDelta]:
        batch.last = choose_tokens(logits, [row.chooser for row in batch.rows])
        scores: Sequence[float | None] = [None] * len(batch)
        if self._log_probs:
            scores = log_probs_of(logits, batch.last).tolist()
        return [
            row.accept(token, score)
            for row, token, score in zip(batch.rows, batch.last.tolist(), scores, strict=True)
        ]


def pick_device(name: str) -> str:
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


def pick_dtype(name: DtypeName, device: torch.device) -> torch.dtype:
    """auto: bfloat16 on GPUs that compute in it (compute capability 8 and up), float32 elsewhere."""
    if name != "auto":
        dtype: torch.dtype = getattr(torch, TORCH_NAMES[name])
        return dtype
    native = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.bfloat16 if native else torch.float32
