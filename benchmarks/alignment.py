"""Agreement of forced alignment over compact posteriors, as they come off the wire, with dense ones.

`python -m benchmarks.alignment [FILES...]` starts the demo model's services, transcribes each file, fetches
dense and compact posteriors of every segment, and compares every token's frames and every word's times.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
import soundfile

from encoder_service.config import EncoderConfig
from gateway.align.emissions import compact_emissions, dense_emissions
from gateway.align.viterbi import AlignmentError, forced_align
from gateway.align.words import AlignedWord, WordAligner
from gateway.backends.encoder import posteriors_of
from gateway.text.ctc_tokenizer import CtcTokenizer
from gateway.text.posteriors import CtcPosteriors
from tandem import Client, RecognizeOptions
from tandem.encoder.v1 import encoder_pb2 as pb
from tandem.encoder.v1 import encoder_pb2_grpc
from tandem.launcher import Addresses, Stack, StackConfig
from tandem.rpc.channels import channel_options
from tandem.rpc.tensors import CHUNK_BYTES, TensorAssembler

DEFAULT = (
    "examples/meeting.flac",
    "tests/data/audio/dialogue_2spk.flac",
    "tests/data/audio/meeting_4spk.flac",
)
FRAME = 0.06


@dataclass
class Agreement:
    """Differences in frames: the larger of start's and end's, one entry per token or word."""

    tokens: list[int] = field(default_factory=list)
    words: list[int] = field(default_factory=list)
    refused: int = 0


@dataclass(frozen=True)
class Posteriors:
    """Dense float32 [T, vocab] and compact posteriors of one segment."""

    dense: np.ndarray[tuple[int, int], np.dtype[np.float32]]
    compact: CtcPosteriors


def fetch(stub: encoder_pb2_grpc.EncoderServiceStub, pcm: bytes) -> Posteriors:
    dense = list(stub.Encode(_requests(pcm, pb.CTC_MODE_DENSE)))
    assembler = TensorAssembler(2**31)
    for answer in dense:
        if answer.HasField("chunk"):
            assembler.add(answer.chunk)
    compact = next(
        answer.compact_ctc
        for answer in stub.Encode(_requests(pcm, pb.CTC_MODE_COMPACT))
        if answer.HasField("compact_ctc")
    )
    return Posteriors(assembler.take("ctc_log_probs").float32(), posteriors_of(compact))


def _requests(pcm: bytes, ctc: pb.CtcMode.ValueType) -> Iterator[pb.EncodeRequest]:
    audio = pb.AudioConfig(format=pb.SAMPLE_FORMAT_S16LE)
    yield pb.EncodeRequest(config=pb.EncodeConfig(audio=audio, ctc=ctc))
    for offset in range(0, len(pcm), CHUNK_BYTES):
        yield pb.EncodeRequest(audio=pcm[offset : offset + CHUNK_BYTES])


def compare(
    text: str, found: Posteriors, tokenizer: CtcTokenizer, aligner: WordAligner, into: Agreement
) -> None:
    """Adds one segment's differences."""
    targets = np.array(tokenizer.encode(text), dtype=np.int64)
    blank = found.compact.blank_id
    full = CtcPosteriors.from_dense(found.dense, blank, found.compact.vocab_size - 1)
    try:
        want = forced_align(dense_emissions(found.dense, targets, blank), targets)
        got = forced_align(compact_emissions(found.compact, targets), targets)
        plan = aligner.plan(text)
        words = [aligner.align(plan, posteriors) if plan else [] for posteriors in (full, found.compact)]
    except AlignmentError:
        into.refused += 1
        return
    into.tokens += np.maximum(abs(want.starts - got.starts), abs(want.ends - got.ends)).tolist()
    into.words += [_apart(a, b) for a, b in zip(*words, strict=True)]


def _apart(a: AlignedWord, b: AlignedWord) -> int:
    return round(max(abs(a.start - b.start), abs(a.end - b.end)) / FRAME)


def run(files: list[Path], model: Path, top_k: int) -> Agreement:
    agreement = Agreement()
    vocabulary = (model / "multilingual.tiktoken").read_bytes()
    with tempfile.TemporaryDirectory() as directory:
        at = Addresses.unix(Path(directory))
        flags = ["--ctc-top-k", str(top_k)]
        config = StackConfig(
            str(model), at, engine="transformers", log_dir=Path(directory), encoder_args=flags
        )
        channel = grpc.insecure_channel(at.encoder, options=channel_options())
        with Stack(config), Client(at.gateway) as client, channel:
            stub = encoder_pb2_grpc.EncoderServiceStub(channel)
            info = stub.GetModelInfo(pb.GetModelInfoRequest(), wait_for_ready=True)
            tokenizer = CtcTokenizer(vocabulary, info.ctc_vocab_size)
            aligner = WordAligner(tokenizer, FRAME)
            for file in files:
                samples, rate = soundfile.read(file, dtype="int16")
                for part in client.recognize(file, RecognizeOptions(word_times=False)).segments:
                    piece = samples[int(part.start * rate) : int(part.end * rate)]
                    compare(part.text, fetch(stub, piece.tobytes()), tokenizer, aligner, agreement)
    return agreement


def report(name: str, differences: list[int]) -> None:
    apart = np.array(differences)
    print(
        f"| {name} | {len(apart)} | {np.mean(apart == 0):.2%} | {np.mean(apart <= 1):.2%} | {apart.max()} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path, default=[Path(name) for name in DEFAULT])
    parser.add_argument("--model", type=Path, default=Path("models/demo"))
    parser.add_argument("--ctc-top-k", type=int, default=EncoderConfig().ctc_top_k)
    options = parser.parse_args()
    agreement = run(options.files, options.model, options.ctc_top_k)
    print("| unit | number | same frames | within one frame | most frames apart |")
    print("| --- | --- | --- | --- | --- |")
    report("token", agreement.tokens)
    report("word", agreement.words)
    print(f"{agreement.refused} segments could not be aligned")


if __name__ == "__main__":
    main()
