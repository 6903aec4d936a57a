"""Speakers through real processes: embeddings from the encoder tier, labels from the gateway."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import numpy as np
import pytest
import torch

from encoder_service.speaker import SpeakerEmbedder, load_speaker_model
from gateway.backends.encoder import EncoderBackend
from tandem import Client, RecognizeOptions
from tandem.encoder.v1 import encoder_pb2 as pb
from tandem.encoder.v1 import encoder_pb2_grpc
from tandem.errors import CapabilityMissing
from tandem.rpc.channels import channel_options
from tandem.rpc.durations import seconds
from tandem.rpc.status import from_rpc_error
from tandem.rpc.tensors import from_message
from tests.golden.nano import relative_error
from tests.support.recordings import recording, recording_path, speaker_weights
from tests.support.services import NANO, encoder, stack

DECODER = ["--dtype", "fp32", "--max-model-len", "1024"]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with encoder(arguments=["--speaker-model", str(speaker_weights())]) as target:
        yield target


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    arguments = ["--speaker-model", str(speaker_weights())]
    with (
        stack(NANO, "transformers", DECODER, encoder_args=arguments) as running,
        Client(running.address) as connected,
    ):
        yield connected


def encode(address: str, *, speaker_embeds: bool = False) -> list[pb.EncodeResponse]:
    audio = pb.AudioConfig(format=pb.SAMPLE_FORMAT_F32LE)
    first = pb.EncodeRequest(config=pb.EncodeConfig(audio=audio, speaker_embeds=speaker_embeds))
    data = recording("dialogue_2spk.flac")[: 5 * 16000].tobytes()
    pieces = [pb.EncodeRequest(audio=data[at : at + 200_000]) for at in range(0, len(data), 200_000)]
    with grpc.insecure_channel(address, options=channel_options()) as channel:
        try:
            return list(
                encoder_pb2_grpc.EncoderServiceStub(channel).Encode(iter([first, *pieces]), timeout=60)
            )
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error


def test_embeddings_over_the_wire(address: str) -> None:
    (message,) = [
        reply.speakers for reply in encode(address, speaker_embeds=True) if reply.HasField("speakers")
    ]
    model = SpeakerEmbedder(load_speaker_model(speaker_weights()), torch.device("cpu"))
    (expected,) = model.embed([recording("dialogue_2spk.flac")[: 5 * 16000]])
    found = from_message(message.embeddings).float32()
    assert found.shape == expected.embeddings.shape == (6, 192)
    assert relative_error(found, expected.embeddings) < 1e-3
    assert [seconds(time) for time in message.starts] == pytest.approx(expected.starts)
    assert [seconds(time) for time in message.ends] == pytest.approx(expected.ends)


def test_nothing_about_speakers_unless_asked(address: str) -> None:
    replies = encode(address)
    assert not any(reply.HasField("speakers") for reply in replies)
    assert replies[-1].timing.speakers.nanos < 1_000_000


async def test_voices_alone_are_those_of_a_whole_segment(address: str) -> None:
    samples = recording("dialogue_2spk.flac")[16000 : 16000 * 4]
    backend = EncoderBackend(address)
    assert (await backend.model_info()).has_speakers
    voices = await backend.voices(samples, "test", timeout=60)
    await backend.close()
    assert voices.embeddings.shape == (3, 192) and (voices.start, voices.end) == (0.0, 3.0)
    assert np.all(voices.starts < voices.ends) and voices.ends[-1] == pytest.approx(3.0)


def test_an_encoder_without_weights_says_so() -> None:
    with encoder(arguments=["--speaker-model", "none"]) as target:
        with pytest.raises(CapabilityMissing, match="speaker"):
            encode(target, speaker_embeds=True)
        assert encode(target)[0].header.num_frames > 0


def test_a_dialogue_gets_its_two_speakers(client: Client) -> None:
    assert client.capabilities().speakers
    options = RecognizeOptions(speakers=True, max_new_tokens=4, details=True)
    transcript = client.recognize(recording_path("dialogue_2spk.flac"), options, timeout=120)
    labels = [segment.speaker for segment in transcript.segments]
    assert set(labels) == {"SPK0", "SPK1"} and labels[0] == "SPK0"
    assert transcript.timing.speakers > 0
    (one,) = {
        segment.speaker
        for segment in client.recognize(
            recording_path("dialogue_2spk.flac"),
            RecognizeOptions(speakers=True, num_speakers=1, max_new_tokens=4, details=True),
            timeout=120,
        ).segments
    }
    assert one == "SPK0"


def test_speakers_are_off_by_default(client: Client) -> None:
    options = RecognizeOptions(max_new_tokens=4, details=True)
    transcript = client.recognize(recording_path("mandarin_6s.wav"), options, timeout=60)
    assert {segment.speaker for segment in transcript.segments} == {None}
    assert transcript.timing.speakers == 0


def test_asking_for_what_is_not_there() -> None:
    options, without = RecognizeOptions(speakers=True), ["--speaker-model", "none"]
    with (
        stack(NANO, "transformers", DECODER, encoder_args=without) as running,
        Client(running.address) as connected,
    ):
        assert not connected.capabilities().speakers
        with pytest.raises(CapabilityMissing, match="speaker model"):
            connected.recognize(recording_path("mandarin_206ms.wav"), options, timeout=60)
