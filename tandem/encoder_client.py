"""A plain caller of the encoder tier: tensors of one recording."""

from __future__ import annotations

import io
import wave
from collections.abc import Iterator
from pathlib import Path

import grpc

from tandem.access import Access
from tandem.encoder.v1 import encoder_pb2 as pb
from tandem.encoder.v1 import encoder_pb2_grpc
from tandem.errors import InvalidAudio
from tandem.rpc.channels import channel_options
from tandem.rpc.status import from_rpc_error
from tandem.rpc.tensors import CHUNK_BYTES, TensorAssembler, WireTensor

MAX_TENSOR_BYTES = 2 * 1024**3


def read_pcm16(data: bytes) -> bytes:
    """The samples of a 16 kHz mono 16-bit wav file; InvalidAudio for anything else."""
    try:
        with wave.open(io.BytesIO(data)) as reader:
            if (reader.getframerate(), reader.getnchannels(), reader.getsampwidth()) != (16000, 1, 2):
                raise InvalidAudio("needs a 16 kHz mono 16-bit wav file")
            samples: bytes = reader.readframes(reader.getnframes())
            return samples
    except (wave.Error, EOFError) as error:
        raise InvalidAudio(f"not a wav file: {error}") from error


def encode_requests(pcm: bytes, ctc: pb.CtcMode.ValueType) -> Iterator[pb.EncodeRequest]:
    """The request stream of one Encode call."""
    audio = pb.AudioConfig(format=pb.SAMPLE_FORMAT_S16LE, num_samples=len(pcm) // 2)
    yield pb.EncodeRequest(config=pb.EncodeConfig(audio=audio, ctc=ctc))
    for offset in range(0, len(pcm), CHUNK_BYTES):
        yield pb.EncodeRequest(audio=pcm[offset : offset + CHUNK_BYTES])


def encode_file(target: str, path: Path, access: Access | None = None) -> dict[str, WireTensor]:
    """`audio_embeds` and, where the model has CTC, dense `ctc_log_probs` of one wav file."""
    pcm = read_pcm16(path.read_bytes())
    assembler = TensorAssembler(MAX_TENSOR_BYTES)
    with (access or Access()).channel(target, channel_options()) as channel:
        stub = encoder_pb2_grpc.EncoderServiceStub(channel)
        try:
            info = stub.GetModelInfo(pb.GetModelInfoRequest(), timeout=10)
            ctc = pb.CTC_MODE_DENSE if info.has_ctc else pb.CTC_MODE_NONE
            for response in stub.Encode(encode_requests(pcm, ctc)):
                if response.HasField("chunk"):
                    assembler.add(response.chunk)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
    return {name: assembler.take(name) for name in assembler.names()}
