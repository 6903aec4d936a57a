"""Word error, and greedy decoding of both branches for development sets."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
import tiktoken
import torch
from tokenizers import Tokenizer
from torch import Tensor

from training.batches import Batch
from training.model import Inputs, Store, TrainingModel, gather
from training.tables import END_ID


def words(text: str) -> list[str]:
    """Lower case, punctuation gone, apostrophes inside words kept."""
    text = text.lower().replace("\u2019", "'")
    return [w.strip("'") for w in re.sub(r"[^\w\s']+", " ", text).split() if w.strip("'")]


def edits(reference: list[str], hypothesis: list[str]) -> int:
    """Levenshtein distance in words."""
    row = list(range(len(hypothesis) + 1))
    for i, r in enumerate(reference, 1):
        diagonal, row[0] = row[0], i
        for j, h in enumerate(hypothesis, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (r != h))
    return row[-1]


def word_error(pairs: Iterable[tuple[str, str]]) -> float:
    """Errors over reference words, of (reference, hypothesis) texts."""
    errors = total = 0
    for reference, hypothesis in pairs:
        ref = words(reference)
        errors += edits(ref, words(hypothesis))
        total += len(ref)
    return errors / max(total, 1)


def collapse(ids: np.ndarray, blank: int) -> list[int]:
    """Frame labels to tokens: repeats merged, blanks dropped."""
    keep = np.append(True, ids[1:] != ids[:-1]) & (ids != blank)
    return [int(i) for i in ids[keep]]


@torch.no_grad()
def greedy_answers(model: TrainingModel, inputs: Inputs, audio: Tensor, suffix: int, limit: int) -> Tensor:
    """Greedy continuation of each prompt, [B, limit], END_ID once an answer is over."""
    ids = inputs.ids.clone()
    begin = inputs.prefix + inputs.audio + suffix
    at = torch.arange(ids.shape[1], device=ids.device)[None]
    ids[at >= begin[:, None]] = 0
    rows = torch.arange(len(ids), device=ids.device)
    done = torch.zeros_like(begin, dtype=torch.bool)
    out = torch.full((len(ids), limit), END_ID, device=ids.device)
    for k in range(limit):
        place = (begin + k).clamp_max(ids.shape[1] - 1)
        hidden = model.llm(model.prompt_embeds(inputs, audio, ids))
        token = model.llm.logits(hidden[rows, place - 1]).argmax(-1)
        done |= token <= END_ID
        out[:, k] = torch.where(done, END_ID, token)
        ids[rows, place] = token
        if bool(done.all()):
            break
    return out


class DevScorer:
    """Word error of a fixed development set, by CTC and by the LLM."""

    def __init__(
        self,
        store: Store,
        batches: list[tuple[Batch, np.ndarray]],
        texts: list[str],
        units: tiktoken.Encoding,
        llm: Tokenizer,
    ) -> None:
        self.store, self.batches, self.texts, self.units, self.llm = store, batches, texts, units, llm

    @torch.no_grad()
    def score(self, model: TrainingModel, with_llm: bool, show: int = 0) -> tuple[float, float]:
        """(CTC word error, LLM word error or nan); prints `show` examples."""
        model.eval()
        ctc: dict[int, str] = {}
        text: dict[int, str] = {}
        for batch, rows in self.batches:
            spec = torch.from_numpy(batch.spec).to(self.store.frames.device)
            inputs = gather(self.store, spec, batch.bucket, model.shape.downsample, None)
            logits, _, audio = model.encode(inputs.features, inputs.lengths)
            labels = logits.argmax(-1).cpu().numpy()
            for row, frames, n in zip(rows, labels, batch.frames, strict=False):
                ctc[int(row)] = self.units.decode(collapse(frames[:n], model.shape.ctc_ranks))
            if with_llm:
                answers = (
                    greedy_answers(model, inputs, audio, self.store.suffix[1], batch.bucket.answer)
                    .cpu()
                    .tolist()
                )
                for row, ids in zip(rows, answers, strict=False):
                    text[int(row)] = self.llm.decode([i for i in ids if i > END_ID])
        model.train()
        for row in list(ctc)[:: max(1, len(ctc) // show)][:show] if show else []:
            print(f"  ref {self.texts[row]}\n  ctc {ctc[row]}\n  llm {text.get(row, '-')}", flush=True)
        llm = word_error((self.texts[i], t) for i, t in text.items()) if with_llm else float("nan")
        return word_error((self.texts[i], t) for i, t in ctc.items()), llm
