"""Agreement of forced alignment with that over dense posteriors, all as they come off the wire.

`python -m benchmarks.alignment [FILES...]` starts the demo model's services, transcribes each file, fetches
posteriors of every segment, and compares every token's frames and every word's times: by compact posteriors
alone, and with the exact log probabilities that the gateway asks for where those leave a place unsure.
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
from numpy.typing import NDArray

from encoder_service.config import EncoderConfig
from gateway.align.emissions import all_seen, compact_emissions, dense_emissions
from gateway.align.viterbi import AlignmentError, TokenSpans, forced_align
from gateway.align.words import AlignedWord, WordAligner
from gateway.backends.wire import posteriors_of
from gateway.text.ctc_tokenizer import CtcTokenizer
from gateway.text.posteriors import CtcPosteriors, TokenLogProbs
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
FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]


@dataclass
class Differences:
    """In frames: the larger of start's and end's, one entry per token or word."""

    tokens: list[int] = field(default_factory=list)
    words: list[int] = field(default_factory=list)


@dataclass
class Agreement:
    """Of compact posteriors alone, and with the exact log probabilities that the gateway asks for."""

    compact: Differences = field(default_factory=Differences)
    asked: Differences = field(default_factory=Differences)
    segments: int = 0
    unsure: int = 0
    refused: int = 0


@dataclass(frozen=True)
class Encoder:
    """One segment's posteriors off the wire, `pcm` being its 16-bit samples."""

    stub: encoder_pb2_grpc.EncoderServiceStub

    def dense(self, pcm: bytes) -> FloatArray:
        """float32 [T, vocab]."""
        assembler = TensorAssembler(2**31)
        for answer in self.stub.Encode(_encode_requests(pcm)):
            if answer.HasField("chunk"):
                assembler.add(answer.chunk)
        return assembler.take("ctc_log_probs").float32()

    def compact(self, pcm: bytes, targets: IntArray) -> tuple[CtcPosteriors, TokenLogProbs]:
        """Compact posteriors, and the exact log probabilities of some tokens."""
        assembler, ids = TensorAssembler(2**31), np.unique(targets)
        posteriors = None
        for answer in self.stub.Transcribe(_target_requests(pcm, ids)):
            if answer.HasField("chunk"):
                assembler.add(answer.chunk)
            elif answer.HasField("compact_ctc"):
                posteriors = posteriors_of(answer.compact_ctc)
        assert posteriors is not None
        columns = assembler.take("target_log_probs").float32()
        return posteriors, TokenLogProbs(ids, columns[:, :-1], columns[:, -1])


_AUDIO = pb.AudioConfig(format=pb.SAMPLE_FORMAT_S16LE)


def _encode_requests(pcm: bytes) -> Iterator[pb.EncodeRequest]:
    yield pb.EncodeRequest(config=pb.EncodeConfig(audio=_AUDIO, ctc=pb.CTC_MODE_DENSE))
    for offset in range(0, len(pcm), CHUNK_BYTES):
        yield pb.EncodeRequest(audio=pcm[offset : offset + CHUNK_BYTES])


def _target_requests(pcm: bytes, targets: IntArray) -> Iterator[pb.TranscribeRequest]:
    config = pb.TranscribeConfig(audio=_AUDIO, ctc=pb.CTC_MODE_COMPACT, ctc_only=True)
    yield pb.TranscribeRequest(config=config)
    for offset in range(0, len(pcm), CHUNK_BYTES):
        yield pb.TranscribeRequest(audio=pcm[offset : offset + CHUNK_BYTES])
    yield pb.TranscribeRequest(audio_end=pb.AudioEnd())
    yield pb.TranscribeRequest(targets=pb.AlignTargets(token_ids=targets.tolist()))


def compare(
    text: str, pcm: bytes, encoder: Encoder, tokenizer: CtcTokenizer, aligner: WordAligner, into: Agreement
) -> None:
    """Adds one segment's differences: of all its tokens, and of words as the gateway places them."""
    targets = np.array(tokenizer.encode(text), dtype=np.int64)
    dense, (compact, exact) = encoder.dense(pcm), encoder.compact(pcm, targets)
    blank = compact.blank_id
    full = CtcPosteriors.from_dense(dense, blank, compact.vocab_size - 1)
    into.segments += 1
    try:
        want = forced_align(dense_emissions(dense, targets, blank), targets)
        got = forced_align(compact_emissions(compact, targets), targets)
        want_words, got_words = aligner.align(text, full).words, aligner.align(text, compact)
    except AlignmentError:
        into.refused += 1
        return
    asked = got if all_seen(compact, targets, got) else forced_align(exact, targets)
    into.compact.tokens += _apart(want, got)
    into.asked.tokens += _apart(want, asked)
    into.compact.words += _words_apart(want_words, got_words.words)
    if len(got_words.unsure):
        into.unsure += 1
        _, found = encoder.compact(pcm, got_words.unsure)
        into.asked.words += _words_apart(want_words, aligner.refine(got_words, found))
    else:
        into.asked.words += _words_apart(want_words, got_words.words)


def _apart(want: TokenSpans, got: TokenSpans) -> list[int]:
    frames: list[int] = np.maximum(abs(want.starts - got.starts), abs(want.ends - got.ends)).tolist()
    return frames


def _words_apart(want: list[AlignedWord], got: list[AlignedWord]) -> list[int]:
    pairs = zip(want, got, strict=True)
    return [round(max(abs(a.start - b.start), abs(a.end - b.end)) / FRAME) for a, b in pairs]


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
            encoder = Encoder(encoder_pb2_grpc.EncoderServiceStub(channel))
            info = encoder.stub.GetModelInfo(pb.GetModelInfoRequest(), wait_for_ready=True)
            tokenizer = CtcTokenizer(vocabulary, info.ctc_vocab_size)
            aligner = WordAligner(tokenizer, FRAME)
            for file in files:
                samples, rate = soundfile.read(file, dtype="int16")
                for part in client.recognize(file, RecognizeOptions(word_times=False)).segments:
                    piece = samples[int(part.start * rate) : int(part.end * rate)]
                    compare(part.text, piece.tobytes(), encoder, tokenizer, aligner, agreement)
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
    for name, found in (("compact", agreement.compact), ("as the gateway asks", agreement.asked)):
        report(f"token, {name}", found.tokens)
        report(f"word, {name}", found.words)
    print(f"{agreement.unsure} of {agreement.segments} segments were unsure of a word and asked for exact")
    print(f"log probabilities; {agreement.refused} could not be aligned")


if __name__ == "__main__":
    main()
