"""The evaluation set: 300 sentences that training never sees, in four voices that training never hears.

    python -m training.make_eval choose --tts TTS --out training/text/eval.tsv
    python -m training.make_eval speak --tts TTS --out DIR
    python -m training.make_eval demo --tts TTS --out DIR

`choose` takes two hundred sentences of the kinds that training uses and a hundred of kinds that it does not
(`unseen`). `speak` runs the int8 ONNX model itself, not the PyTorch port that made the training speech.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .kokoro_assets import HELD_OUT, load_vocabulary, read_voice, token_ids
from .text.clean import clean, key, split_sentences
from .text.grammar import Grammar
from .text.sources import READERS

KINDS = {"chitchat": 70, "wordnet": 45, "austen": 20, "fortunes": 15, "grammar": 50}
UNSEEN = {"chatterbot": 50, "written": 50}
RATE = 16_000
_HERE = Path(__file__).parent
_DEMO = (
    ("af_river", "Good morning, everyone, and thank you for joining so early."),
    ("bm_lewis", "Good morning. Before we begin, has everybody seen the latest figures?"),
    ("af_river", "Yes, sales went up by twelve percent in March, which is better than we expected."),
    ("bm_lewis", "Then I suggest that we move the launch to Thursday, the ninth of May."),
    ("af_river", "That works for me. I will call the printer this afternoon and ask for a new price."),
    ("bm_lewis", "Perfect. Let's meet again on Monday at half past ten and look at the results together."),
)


def _chatterbot(root: Path) -> Iterator[str]:
    """Dialogue of chatterbot-corpus (BSD), not used in training."""
    for path in sorted((root / "chatterbot").glob("*.yml")):
        for line in path.read_text("utf-8").splitlines():
            if match := re.match(r"\s*-\s(?:-\s)?(.*)", line):
                yield from split_sentences(match[1].strip("\"' "))


def choose(sources: Path, words: frozenset[str], seed: int) -> list[tuple[str, str]]:
    """(kind, sentence): as many of each kind as KINDS and UNSEEN say, 4 to 22 words long, no two alike."""
    rng = random.Random(seed)
    readers = dict(READERS) | {"chatterbot": _chatterbot}
    chosen: list[tuple[str, str]] = []
    seen: set[str] = set()

    def take(kind: str, raw: list[str], count: int) -> None:
        rng.shuffle(raw)
        for text in raw:
            sentence = clean(text, words, low=4, high=22)
            if count and sentence is not None and key(sentence) not in seen:
                seen.add(key(sentence))
                chosen.append((kind, sentence))
                count -= 1
        if count:
            raise ValueError(f"{kind} is {count} sentences short")

    for kind, count in (KINDS | UNSEEN).items():
        if kind == "grammar":
            grammar = Grammar(seed + 12345)
            take(kind, [grammar.sentence() for _ in range(4 * count)], count)
        elif kind == "written":
            take(kind, (_HERE / "text" / "held_out.txt").read_text("utf-8").splitlines(), count)
        else:
            take(kind, list(readers[kind](sources)), count)
    rng.shuffle(chosen)
    return chosen


@dataclass(frozen=True)
class Speaker:
    """The int8 ONNX model on one thread."""

    session: Any
    vocabulary: dict[str, int]
    voices: Path
    phonemise: dict[bool, Callable[[str], str]]

    @classmethod
    def load(cls, tts: Path) -> Speaker:
        """From the folder that fetch_tts.py fills."""
        import onnxruntime

        sys.path.insert(0, str(tts))
        from hibari.g2p import G2P

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            str(tts / "kokoro.onnx"), options, providers=["CPUExecutionProvider"]
        )
        return cls(
            session,
            load_vocabulary(tts / "vocab.json"),
            tts / "voices",
            {gb: G2P(british=gb) for gb in (False, True)},
        )

    def say(self, text: str, voice: str, speed: float = 1.0) -> npt.NDArray[np.float32]:
        """float32 at 16 kHz, silence trimmed to 50 ms, peak 0.9."""
        from scipy.signal import resample_poly

        ids = token_ids(self.phonemise[voice.startswith("b")](text), self.vocabulary)
        style = read_voice(self.voices / f"{voice}.bin")[len(ids) - 1][None]
        feed = {
            "tokens": np.array([[0, *ids, 0]], np.int64),
            "style": style,
            "speed": np.array([speed], np.float32),
        }
        wave = resample_poly(self.session.run(None, feed)[0].ravel(), 2, 3)
        loud = np.flatnonzero(np.abs(wave) > 0.01 * np.abs(wave).max())
        wave = wave[max(0, loud[0] - RATE // 20) : loud[-1] + RATE // 20]
        return np.asarray(wave * (0.9 / np.abs(wave).max()), dtype=np.float32)


def speak(rows: list[tuple[str, str]], speaker: Speaker, out: Path, seed: int) -> None:
    """OUT/NNN.flac and OUT/eval.tsv (file, seconds, voice, kind, text); voices take turns."""
    import soundfile

    rng = random.Random(seed)
    lines = []
    for i, (kind, text) in enumerate(rows):
        voice = HELD_OUT[i % len(HELD_OUT)]
        wave = speaker.say(text, voice, round(rng.uniform(0.9, 1.1), 2))
        soundfile.write(out / f"{i:03d}.flac", wave, RATE, subtype="PCM_16")
        lines.append(f"{i:03d}.flac\t{len(wave) / RATE:.2f}\t{voice}\t{kind}\t{text}")
    (out / "eval.tsv").write_text("\n".join(lines) + "\n", "utf-8")


def demo(speaker: Speaker, out: Path) -> None:
    """OUT/meeting.flac and OUT/meeting.json: two held-out voices take turns, with pauses of 0.4 to 0.8 s."""
    import soundfile

    parts, turns, at = [np.zeros(RATE // 4, np.float32)], [], RATE // 4
    for i, (voice, text) in enumerate(_DEMO):
        wave = speaker.say(text, voice, 0.95)
        end = at + len(wave)
        turns.append(
            {"speaker": voice, "start": round(at / RATE, 3), "end": round(end / RATE, 3), "text": text}
        )
        pause = np.zeros(int(RATE * (0.4, 0.6, 0.8)[i % 3]), np.float32)
        parts += [wave, pause]
        at += len(wave) + len(pause)
    soundfile.write(out / "meeting.flac", np.concatenate(parts), RATE, subtype="PCM_16")
    text = " ".join(line for _, line in _DEMO)
    transcript = {"sample_rate": RATE, "seconds": round(at / RATE, 2), "text": text, "turns": turns}
    (out / "meeting.json").write_text(json.dumps(transcript, indent=2) + "\n", "utf-8")


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("step", choices=("choose", "speak", "demo"))
    p.add_argument("--tts", type=Path, required=True, help="folder that fetch_tts.py filled")
    p.add_argument("--text", type=Path, default=_HERE / "text" / "eval.tsv")
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--seed", type=int, default=7)
    o = p.parse_args()
    if o.step == "choose":
        from .texts import frequent_words, vocabulary

        words = vocabulary(o.tts / "hibari" / "assets", frequent_words(120_000))
        rows = choose(o.tts / "sources", words, o.seed)
        o.out.write_text("".join(f"{kind}\t{text}\n" for kind, text in rows), "utf-8")
        return
    o.out.mkdir(parents=True, exist_ok=True)
    speaker = Speaker.load(o.tts)
    if o.step == "demo":
        demo(speaker, o.out)
    else:
        table = [line.split("\t") for line in o.text.read_text("utf-8").splitlines()]
        speak([(kind, text) for kind, text in table], speaker, o.out, o.seed)


if __name__ == "__main__":
    main()
