"""What the hop from encoder to decoder costs for one 60 s segment: bytes on the wire and milliseconds.

The encoder reports the time from the first byte it sends to the decoder until the last token comes
back, the decoder the time from the complete prompt to the last token; the difference is the hop.
Run it as `python -m benchmarks.tier_hop [--engine vllm]`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np

from benchmarks import random_checkpoint
from tandem.decoder.v1 import decoder_pb2
from tandem.encoder.v1 import encoder_pb2 as pb
from tandem.encoder.v1 import encoder_pb2_grpc
from tandem.launcher import Addresses, Stack, StackConfig
from tandem.rpc.channels import channel_options
from tandem.rpc.durations import seconds
from tandem.rpc.tensors import CHUNK_BYTES

PUBLISHED_WIDTH = {"audio_adaptor_conf.llm_dim": 1024, "audio_adaptor_conf.downsample_rate": 1}
PUBLISHED_WIDTH |= {"audio_adaptor_conf.use_low_frame_rate": True}
LLM_WIDTH = {"hidden_size": 1024, "num_hidden_layers": 1}


@dataclass(frozen=True)
class Hop:
    """One call: seconds and bytes."""

    round_trip: float
    decode: float
    embed_bytes: int
    ctc_bytes: int

    @property
    def cost(self) -> float:
        return self.round_trip - self.decode


def requests(pcm: bytes, max_tokens: int) -> Iterator[pb.TranscribeRequest]:
    sampling = decoder_pb2.SamplingParams(max_tokens=max_tokens, ignore_eos=True)
    audio = pb.AudioConfig(format=pb.SAMPLE_FORMAT_S16LE)
    yield pb.TranscribeRequest(
        config=pb.TranscribeConfig(
            audio=audio,
            ctc=pb.CTC_MODE_COMPACT,
            prefix_token_ids=[1] * 18,
            suffix_token_ids=[1] * 5,
            sampling=sampling,
            final_only=True,  # as gateways ask
        )
    )
    for offset in range(0, len(pcm), CHUNK_BYTES):
        yield pb.TranscribeRequest(audio=pcm[offset : offset + CHUNK_BYTES])


def measure(stub: encoder_pb2_grpc.EncoderServiceStub, pcm: bytes, max_tokens: int) -> Hop:
    ctc_bytes, timing = 0, pb.TranscribeTiming()
    for response in stub.Transcribe(requests(pcm, max_tokens)):
        if response.HasField("compact_ctc"):
            ctc_bytes = response.compact_ctc.ByteSize()
        if response.HasField("timing"):
            timing = response.timing
    return Hop(
        seconds(timing.decoder_round_trip), seconds(timing.decode.total), timing.embed_bytes, ctc_bytes
    )


def run(model: Path, engine: str, calls: int, max_tokens: int) -> list[Hop]:
    """Hops of distinct 60 s segments through encoder and decoder processes, warm-up left out."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        addresses = Addresses.tcp(gateway=50951, encoder=50952, decoder=50953)
        config = StackConfig(str(model), addresses, engine=engine, log_dir=root)
        with Stack(config), grpc.insecure_channel(addresses.encoder, options=channel_options()) as channel:
            stub = encoder_pb2_grpc.EncoderServiceStub(channel)
            noise = [rng.normal(0, 3000, 60 * 16000).astype("<i2").tobytes() for _ in range(calls + 2)]
            return [measure(stub, pcm, max_tokens) for pcm in noise][2:]


def report(name: str, hops: list[Hop]) -> None:
    cost = sorted(hop.cost * 1000 for hop in hops)
    share = statistics.median(hop.cost / hop.round_trip for hop in hops)
    print(
        f"| {name} | {hops[0].embed_bytes:,} | {hops[0].ctc_bytes:,} | {statistics.median(cost):.2f} "
        f"| {cost[-1]:.2f} | {statistics.median(hop.decode for hop in hops) * 1000:.0f} | {share:.1%} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", default="transformers", choices=("vllm", "transformers"))
    parser.add_argument("--demo", type=Path, default=Path("models/demo"))
    parser.add_argument("--calls", type=int, default=20)
    parser.add_argument("--max-tokens", type=int, default=180, help="3 tokens a second is what speech gives")
    options = parser.parse_args()
    print(
        "| checkpoint | embedding bytes | compact CTC bytes | hop ms, median | max | decode ms | hop share |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    report("demo", run(options.demo, options.engine, options.calls, options.max_tokens))
    with tempfile.TemporaryDirectory() as directory:
        wide = random_checkpoint.write(Path(directory), options.demo, dict(PUBLISHED_WIDTH), dict(LLM_WIDTH))
        report("published widths, 1-layer LLM", run(wide, options.engine, options.calls, options.max_tokens))


if __name__ == "__main__":
    main()
