"""Decoder requests with their drafts, made from recordings: what an encoder with --drafts sends.

`clean` is speech of the kind that the demo model knows: all runs of one to three neighbouring turns of
examples/meeting.flac, each at several volumes. `hard` is not: the recordings of real people under tests/data.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parents[1]
MEETING = ROOT / "examples" / "meeting.flac"
CONVERSATIONS = [
    ROOT / "tests" / "data" / "audio" / name for name in ("dialogue_2spk.flac", "meeting_4spk.flac")
]
VOLUMES = {"clean": (1.0, 0.9, 0.8, 0.7, 0.6, 0.5), "hard": (1.0, 0.8, 0.6)}
LONGEST_RUN = 3
BATCH = 16
MAX_TOKENS = 300

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Drafted:
    """One request: prefix ids | embeds [n, hidden] | suffix ids, the draft, and how many tokens at most."""

    prefix: tuple[int, ...]
    embeds: Floats
    suffix: tuple[int, ...]
    draft: tuple[int, ...]
    max_tokens: int = MAX_TOKENS
    ignore_eos: bool = False
    answer: tuple[int, ...] | None = None
    """What a model without errors of rounding says, where that is known."""


def prepare(model: Path, group: str) -> list[Drafted]:
    """The requests of a group, through the encoder of a checkpoint on the CPU."""
    from encoder_service.checkpoint import load_checkpoint
    from encoder_service.draft import Drafter
    from encoder_service.engine import EncoderEngine, EngineConfig
    from encoder_service.messages import CtcOutput, EncodeItem

    engine = EncoderEngine(load_checkpoint(model), EngineConfig())
    drafter = Drafter(engine.checkpoint)
    prefix, suffix = _prompt(engine.checkpoint.directory)
    clips = list(_clips(group))
    requests = []
    for begin in range(0, len(clips), BATCH):
        items = [EncodeItem(clip, CtcOutput.COMPACT) for clip in clips[begin : begin + BATCH]]
        for encoded in engine.encode(items):
            assert encoded.embeds is not None and encoded.compact is not None
            draft = drafter.draft(encoded.compact)
            requests.append(Drafted(prefix, encoded.embeds.float32(), suffix, draft))
    return requests


def _prompt(checkpoint: Path) -> tuple[tuple[int, ...], tuple[int, ...]]:
    from decoder_service.weights import llm_directory
    from encoder_service.describe import prompt_style
    from gateway.text.prompt import PromptBuilder, PromptOptions, PromptStyle

    style = prompt_style(checkpoint)
    tokenizer = (llm_directory(checkpoint) / "tokenizer.json").read_bytes()
    prompt = PromptBuilder(tokenizer, PromptStyle(style.system_turn, style.think)).build(PromptOptions())
    return tuple(prompt.prefix_token_ids), tuple(prompt.suffix_token_ids)


def _clips(group: str) -> Iterator[Floats]:
    """Distinct clips: neighbouring requests are of different speech."""
    spoken = list(_turns() if group == "clean" else _segments())
    for volume in VOLUMES[group]:
        yield from (np.float32(volume) * clip for clip in spoken)


def _turns() -> Iterator[Floats]:
    turns = json.loads(MEETING.with_suffix(".json").read_text(encoding="utf-8"))["turns"]
    samples, rate = _read(MEETING)
    for length in range(1, LONGEST_RUN + 1):
        for first, last in zip(turns, turns[length - 1 :], strict=False):
            yield samples[int(first["start"] * rate) : int(last["end"] * rate)]


def _segments() -> Iterator[Floats]:
    from gateway.vad.fsmn import FsmnVad
    from gateway.vad.segmenter import VadOptions, segment

    vad = FsmnVad(ROOT / "models" / "vad")
    for path in CONVERSATIONS:
        samples, rate = _read(path)
        for part in segment(vad, samples, VadOptions()):
            span = part.samples(rate)
            yield samples[span.start : span.stop]


def _read(path: Path) -> tuple[Floats, int]:
    import soundfile

    samples, rate = soundfile.read(path, dtype="float32")
    return np.asarray(samples, np.float32), int(rate)


def save(path: Path, requests: Sequence[Drafted]) -> None:
    """An .npz that `load` reads where no audio can be: embeddings in float16."""
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    for number, request in enumerate(requests):
        arrays[f"{number}.embeds"] = request.embeds.astype(np.float16)
        for name in ("prefix", "suffix", "draft"):
            arrays[f"{number}.{name}"] = np.array(getattr(request, name), np.int32)
    np.savez_compressed(path, allow_pickle=False, **arrays)


def load(path: Path) -> list[Drafted]:
    with np.load(path) as file:
        count = sum(name.endswith(".embeds") for name in file.files)
        return [
            Drafted(
                prefix=tuple(file[f"{number}.prefix"].tolist()),
                embeds=file[f"{number}.embeds"].astype(np.float32),
                suffix=tuple(file[f"{number}.suffix"].tolist()),
                draft=tuple(file[f"{number}.draft"].tolist()),
            )
            for number in range(count)
        ]
