"""Diarization on recordings with known turns: error rate, and what the speaker model costs on this machine.

    python -m benchmarks.diarization

Real FSMN-VAD segments, real CAM++ weights, no recognizer: speakers change where windows say so. Several ways
to place windows are compared; the first row is what the service does. CPU seconds are of one thread.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.der import DiarizationError, SpokenTurn, diarization_error
from encoder_service.speaker import SpeakerEmbedder, load_speaker_model
from encoder_service.speaker_plan import SpeakerConfig
from gateway.speakers.diarize import Diarization, diarize
from gateway.speakers.types import SegmentEmbeddings
from gateway.vad.fsmn import FsmnVad
from gateway.vad.segmenter import SpeechSegment, VadOptions, segment

ROOT = Path(__file__).resolve().parents[1]
RECORDINGS = ("dialogue_2spk", "meeting_4spk")
Samples = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Recording:
    """Samples at 16 kHz, who really speaks when, and what the detector calls speech."""

    name: str
    samples: Samples
    turns: tuple[SpokenTurn, ...]
    segments: tuple[SpeechSegment, ...]


def load(name: str, vad: FsmnVad, directory: Path = ROOT / "tests" / "data" / "audio") -> Recording:
    import soundfile

    samples, _ = soundfile.read(directory / f"{name}.flac", dtype="float32")
    turns = json.loads((directory / f"{name}.json").read_text(encoding="utf-8"))
    return Recording(
        name,
        samples,
        tuple(SpokenTurn(turn["speaker"], turn["start"], turn["end"]) for turn in turns),
        tuple(segment(vad, samples, VadOptions())),
    )


def voices(embedder: SpeakerEmbedder, recording: Recording) -> list[SegmentEmbeddings]:
    """Embeddings of all speech of a recording, as the encoder tier computes them."""
    found = embedder.embed([recording.samples[part.samples()] for part in recording.segments])
    return [
        SegmentEmbeddings(
            0.0, (part.end_ms - part.start_ms) / 1000, windows.embeddings, windows.starts, windows.ends
        ).shifted(part.start_ms / 1000)
        for part, windows in zip(recording.segments, found, strict=True)
    ]


def score(recording: Recording, found: Diarization) -> DiarizationError:
    turns = [SpokenTurn(turn.label, turn.start, turn.end) for turn in found.turns]
    return diarization_error(recording.turns, turns)


def windowings() -> dict[str, SpeakerConfig]:
    """Ways to place windows, what the service does first."""
    return {
        "pieces of 3 s, windows 1.5 s every 0.75 s": SpeakerConfig(),
        "pieces of 3 s, windows 1.5 s every 0.5 s": SpeakerConfig(shift=0.5),
        "pieces of 3 s, windows 1.5 s every 1.5 s": SpeakerConfig(shift=1.5),
        "pieces of 6 s, windows 1.5 s every 0.75 s": SpeakerConfig(piece=6.0),
        "pieces of 3 s, windows 3 s every 1.5 s": SpeakerConfig(window=3.0, shift=1.5),
    }


def row(name: str, recordings: Sequence[Recording], config: SpeakerConfig, weights: Path) -> str:
    """One line of the table: errors, speakers, seconds of CPU for a second of speech."""
    embedder = SpeakerEmbedder(load_speaker_model(weights), torch.device("cpu"), config=config)
    cells, spent, speech, grouping = [], 0.0, 0.0, 0.0
    for recording in recordings:
        begun = time.process_time()
        found = voices(embedder, recording)
        spent += time.process_time() - begun
        speech += sum(part.end_ms - part.start_ms for part in recording.segments) / 1000
        begun = time.process_time()
        for known in (None, len({turn.speaker for turn in recording.turns})):
            error = score(recording, diarize(found, known))
            cells.append(f"{error.rate:.2%} ({error.found_speakers} of {error.reference_speakers})")
        grouping += (time.process_time() - begun) / 2
    return f"| {name} | {' | '.join(cells)} | {spent / speech:.4f} | {grouping / speech:.5f} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--speaker-model", type=Path, default=ROOT / "models" / "speaker")
    parser.add_argument("--vad-model", type=Path, default=ROOT / "models" / "vad")
    options = parser.parse_args()
    torch.set_num_threads(1)
    vad = FsmnVad(options.vad_model)
    recordings = [load(name, vad) for name in RECORDINGS]
    heads = [f"{name} {kind}" for name in RECORDINGS for kind in ("found", "given")]
    print("Diarization error rate, 0.25 s collar (speakers found of true)")
    print(f"| windows | {' | '.join(heads)} | CPU s per s of speech | clustering |")
    print("| --- " * (len(heads) + 3) + "|")
    for name, config in windowings().items():
        print(row(name, recordings, config, options.speaker_model), flush=True)


if __name__ == "__main__":
    main()
