"""Word error of an exported model on recordings, on the CPU: CTC greedy and LLM greedy.

python -m training.evaluate MODEL_DIR SOURCE: a shard (.pt), or a folder with a .tsv whose first column is the
file and whose last is the text. --by N also groups by column N, counted from 0: in EVAL/eval.tsv, 3 is the
kind.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from encoder_service.checkpoint import load_checkpoint
from encoder_service.frontend import Frontend
from tandem.checkpoint import read_tensors
from training.corpus import load_corpus
from training.prompts import SUFFIX, prefix_text
from training.qwen3 import Qwen3
from training.score import collapse, word_error
from training.tables import END_ID
from training.units import LLM_DIR, RANKS_FILE, load_ctc_units

Clip = tuple[str, Tensor, str, str]
Texts = tuple[str, str, str]


def clips(source: Path, by: int | None = None) -> Iterator[Clip]:
    """(name, float samples in [-1, 1], reference, group: what column `by` says)."""
    if source.suffix == ".pt":
        corpus = load_corpus([source])
        for i, text in enumerate(corpus.texts):
            begin = int(corpus.start[i])
            yield f"{i}", corpus.audio[begin : begin + int(corpus.length[i])].float() / 32768, text, ""
        return
    import soundfile

    for line in next(iter(sorted(source.glob("*.tsv")))).read_text(encoding="utf-8").splitlines():
        row = line.split("\t")
        if (source / row[0]).is_file():
            audio, rate = soundfile.read(source / row[0], dtype="float32")
            if rate != 16000:
                raise ValueError(f"{row[0]} has {rate} Hz")
            yield row[0], torch.from_numpy(audio), row[-1], "" if by is None else row[by]


class Recogniser:
    """The exported checkpoint as the services load it, with the training's own Qwen3 for the answers."""

    def __init__(self, directory: Path) -> None:
        checkpoint = load_checkpoint(directory)
        self.model, config = checkpoint.model, checkpoint.config
        self.frontend = Frontend(config.frontend)
        self.units = load_ctc_units(directory / RANKS_FILE)
        self.tokenizer = Tokenizer.from_file(str(directory / LLM_DIR / "tokenizer.json"))
        conf: dict[str, Any] = json.loads((directory / LLM_DIR / "config.json").read_text())
        self.llm = Qwen3(conf).eval()
        tensors = read_tensors(directory / "model.pt")
        own = {k.removeprefix("llm."): v.float() for k, v in tensors.items() if k.startswith("llm.model.")}
        self.llm.load_state_dict(own)

    @torch.no_grad()
    def __call__(self, samples: Tensor, hotwords: list[str]) -> tuple[str, str]:
        """(CTC text, LLM text) of one clip."""
        out = self.model(*self.frontend.extract([samples]))
        assert self.model.ctc is not None and out.ctc_hidden is not None
        labels = self.model.ctc(out.ctc_hidden)[0].argmax(-1).numpy()
        ctc = self.units.decode(collapse(np.asarray(labels), self.model.ctc.blank_id))
        prefix = self._embed(prefix_text(hotwords, None, True))
        embeds = torch.cat((prefix, out.audio_embeds[0], self._embed(SUFFIX)))[None]
        ids: list[int] = []
        for _ in range(16 + out.audio_embeds.shape[1]):
            token = int(self.llm.logits(self.llm(embeds)[:, -1]).argmax())
            if token <= END_ID:
                break
            ids.append(token)
            embeds = torch.cat((embeds, self.llm.embed(torch.tensor([[token]]))), 1)
        return ctc, self.tokenizer.decode(ids)

    def _embed(self, text: str) -> Tensor:
        return self.llm.embed(torch.tensor(self.tokenizer.encode(text, add_special_tokens=False).ids))


def summary(rows: list[Texts]) -> dict[str, float]:
    """Clips, reference words, and word errors of CTC and language model."""
    return {
        "clips": len(rows),
        "words": sum(len(reference.split()) for reference, _, _ in rows),
        "ctc_word_error": round(word_error((r, c) for r, c, _ in rows), 4),
        "llm_word_error": round(word_error((r, t) for r, _, t in rows), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("source", type=Path)
    parser.add_argument("--hotwords", nargs="*", default=[])
    parser.add_argument("--limit", type=int, default=10**9)
    parser.add_argument("--by", type=int, help="column to group by")
    parser.add_argument("--show", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    recogniser = Recogniser(args.model)
    groups: dict[str, list[Texts]] = {}
    for count, (name, samples, reference, group) in enumerate(clips(args.source, args.by)):
        if count >= args.limit:
            break
        ctc, llm = recogniser(samples, args.hotwords)
        groups.setdefault(group, []).append((reference, ctc, llm))
        if count < args.show:
            print(f"{name}\n  ref {reference}\n  ctc {ctc}\n  llm {llm}")
    if args.by is not None:
        for group, rows in sorted(groups.items()):
            print(group, json.dumps(summary(rows)))
    print(json.dumps(summary([row for rows in groups.values() for row in rows])))


if __name__ == "__main__":
    main()
