"""The random checkpoint loads like a published one, and its workload has the size that is claimed."""

from __future__ import annotations

import wave
from pathlib import Path

import pytest
import torch

from benchmarks import published, vocabularies, workload
from decoder_service.weights import read_language_model
from encoder_service.checkpoint import load_checkpoint
from encoder_service.speaker import load_speaker_model
from gateway.text.ctc_tokenizer import CtcTokenizer
from gateway.text.detokenize import Detokenizer
from gateway.text.prompt import PromptBuilder, PromptOptions


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published.ensure(tmp_path_factory.mktemp("published") / "model", small=True)


def test_every_tier_takes_its_part(checkpoint: Path) -> None:
    encoder = load_checkpoint(checkpoint)
    assert encoder.has_ctc and encoder.config.ctc is not None
    assert encoder.config.ctc.vocab_size == vocabularies.CTC_VOCABULARY
    language_model = read_language_model(checkpoint, checkpoint / published.LLM_NAME)
    assert language_model["model.embed_tokens.weight"].shape == (151_936, 128)
    load_speaker_model(published.speaker_directory(checkpoint))


def test_parameters_of_the_published_sizes() -> None:
    shapes = published.audio_shapes(published.CONFIG)

    def millions(*prefixes: str) -> int:
        return round(sum(shape.numel() for name, shape in shapes.items() if name.startswith(prefixes)) / 1e6)

    assert millions("audio_encoder", "audio_adaptor") == 234
    assert millions("ctc") == 39
    assert round(sum(shape.numel() for shape in published.llm_shapes(published.LLM).values()) / 1e6) == 596


def test_any_token_becomes_text_that_the_ctc_vocabulary_spells(checkpoint: Path) -> None:
    tokenizer = (checkpoint / published.LLM_NAME / "tokenizer.json").read_bytes()
    ids = torch.randint(256, 151_936, (500,), generator=torch.Generator().manual_seed(0)).tolist()
    text = Detokenizer(tokenizer).decode(ids)
    ctc = CtcTokenizer((checkpoint / "multilingual.tiktoken").read_bytes(), vocabularies.CTC_VOCABULARY)
    spelt = ctc.encode(text)
    assert ctc.decode(spelt) == text
    assert len(spelt) < 2.5 * len(ids)
    prompt = PromptBuilder(tokenizer).build(PromptOptions())
    assert len(prompt.prefix_token_ids) + len(prompt.suffix_token_ids) <= 23


def test_the_workload_has_the_stated_size_and_no_file_twice(tmp_path: Path) -> None:
    lengths = workload.Workload().lengths()
    assert len(lengths) == 184 and abs(sum(lengths) / workload.RATE - 11_541) < 0.1
    assert min(lengths) >= 44 * workload.RATE and max(lengths) <= 90 * workload.RATE
    small = workload.Workload(files=3, seconds=6, shortest=1, longest=3)
    files = workload.write(tmp_path / "a", small)
    with wave.open(str(files[0])) as file:
        assert (file.getframerate(), file.getnframes()) == (workload.RATE, small.lengths()[0])
    again = workload.write(
        tmp_path / "b", workload.Workload(files=3, seconds=6, shortest=1, longest=3, seed=1)
    )
    assert all(one.read_bytes() != other.read_bytes() for one, other in zip(files, again, strict=True))
