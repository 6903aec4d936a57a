"""Runs a causal language model over batches: prefill of new rows, one decoding step for running ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, DynamicCache

from decoder_service.engines.base import DraftCounts, GenerationRequest, TokenDelta
from decoder_service.engines.batch import Batch, Row, left_padded_mask
from decoder_service.engines.draft import DraftFollower
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
        self._speculative_tokens = settings.speculative_tokens
        self.drafts = DraftCounts()
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
        """A batch of new rows and the first tokens of each."""
        rows = [self._row(request) for request in requests]
        drafts = self._propose(rows)
        extra = max(map(len, drafts))
        width = max(len(request.prompt) for request in requests)
        embeddings = self._embed_prompts(requests, width)
        if extra:
            embeddings = torch.cat([embeddings, self._embed(self._padded(drafts, extra))], dim=1)
        mask = left_padded_mask([row.length + 1 + extra for row in rows], width + extra, self.device)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        batch = Batch(rows, DynamicCache(), torch.zeros(0))
        logits = self._forward(batch, mask, positions, 1 + extra, inputs_embeds=embeddings)
        return batch, self._advance(batch, logits, drafts)

    @torch.inference_mode()
    def decode(self, batch: Batch) -> list[TokenDelta]:
        """One more token of every row, and as many of its draft as the model agrees with."""
        drafts = self._propose(batch.rows)
        fed = 1 + max(map(len, drafts))
        ids = batch.last[:, None]
        if fed > 1:
            ids = torch.cat([ids, self._padded(drafts, fed - 1)], dim=1)
        mask, positions = batch.attention_mask(fed), batch.positions(fed)
        logits = self._forward(batch, mask, positions, fed, input_ids=ids)
        return self._advance(batch, logits, drafts)

    def _propose(self, rows: Sequence[Row]) -> list[list[int]]:
        """Draft tokens that may come next, up to speculative_tokens of each row."""
        return [row.propose(self._speculative_tokens) for row in rows]

    def _padded(self, drafts: Sequence[Sequence[int]], width: int) -> Tensor:
        """Ids [B, width], filled up with zeros: what follows a row's draft is fed in vain and forgotten."""
        return torch.tensor([[*draft, *[0] * (width - len(draft))] for draft in drafts], device=self.device)

    def _row(self, request: GenerationRequest) -> Row:
        sampling = request.sampling
        stop = frozenset() if sampling.ignore_eos else self.facts.eos_token_ids | sampling.stop_token_ids
        seen = request.prompt.token_ids()
        chooser = Chooser(sampling, seen, self.facts.vocab_size, self.device)
        draft = DraftFollower(request.verifiable if self._speculative_tokens else ())
        # The prompt's last position stands for the newest token: what follows it is verified like any other.
        return Row(request, chooser, stop, len(request.prompt) - 1, draft)

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

    def _forward(self, batch: Batch, mask: Tensor, positions: Tensor, count: int, **inputs: Tensor) -> Tensor:
        """Float32 logits [B, count, vocab] of the last positions; the cache grows by all new ones."""
        output = self._model(
            **inputs,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=batch.cache,
            use_cache=True,
            logits_to_keep=count,
        )
        logits: Tensor = output.logits.float()
        return logits

    def _advance(self, batch: Batch, logits: Tensor, drafts: Sequence[Sequence[int]]) -> list[TokenDelta]:
        """Keep of logits [B, 1 + longest draft, vocab] what continues each row's own choices."""
        tokens = choose_tokens(logits, [row.chooser for row in batch.rows])
        chosen = tokens.tolist()
        kept = [1 + _agreeing(draft, ids) for draft, ids in zip(drafts, chosen, strict=True)]
        self.drafts = self.drafts.plus(sum(map(len, drafts)), sum(kept) - len(kept))
        batch.settle(logits.shape[1], kept)
        batch.last = tokens.gather(1, torch.tensor(kept, device=self.device)[:, None] - 1).squeeze(1)
        scores = log_probs_of(logits, tokens).tolist() if self._log_probs else [[]] * len(batch)
        return [
            row.accept(ids[:count], log_probs[:count])
            for row, ids, log_probs, count in zip(batch.rows, chosen, scores, kept, strict=True)
        ]


def _agreeing(draft: Sequence[int], chosen: Sequence[int]) -> int:
    """How many draft tokens, from the first, are what the model chose."""
    pairs = zip(draft, chosen, strict=False)
    return next((at for at, (guess, choice) in enumerate(pairs) if guess != choice), len(draft))


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
