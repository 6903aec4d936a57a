"""Between the encoder's messages and numpy: samples out, posteriors and voices in, every shape checked."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gateway.audio.types import Samples
from gateway.speakers.types import SegmentEmbeddings
from gateway.text.posteriors import CtcPosteriors
from tandem.encoder.v1 import encoder_pb2 as pb
from tandem.errors import InternalError
from tandem.rpc.durations import seconds
from tandem.rpc.tensors import CHUNK_BYTES, from_message
from tandem.tensor.v1 import tensor_pb2


def audio_config(samples: Samples) -> pb.AudioConfig:
    """Samples travel as they are: in most recordings a sample has 16 bits."""
    pcm = samples.dtype == np.int16
    kind = pb.SAMPLE_FORMAT_S16LE if pcm else pb.SAMPLE_FORMAT_F32LE
    return pb.AudioConfig(format=kind, num_samples=len(samples))


def audio_bytes(samples: Samples) -> bytes:
    """Samples [n] as they travel: little-endian."""
    return samples.astype(samples.dtype.newbyteorder("<"), copy=False).tobytes()


def audio_messages(samples: Samples) -> Iterator[pb.TranscribeRequest]:
    """The samples in messages of at most CHUNK_BYTES."""
    data = memoryview(audio_bytes(samples))
    for offset in range(0, len(data), CHUNK_BYTES):
        yield pb.TranscribeRequest(audio=bytes(data[offset : offset + CHUNK_BYTES]))


def posteriors_of(message: tensor_pb2.CompactLogProbs) -> CtcPosteriors:
    """Checked numpy views of compact posteriors, float32 whatever they travelled in."""
    return CtcPosteriors(
        top_ids=from_message(message.top_ids, "top_ids").array.astype(np.int32),
        top_log_probs=from_message(message.top_log_probs, "top_log_probs").float32(),
        blank=from_message(message.blank_log_probs, "blank_log_probs").float32(),
        remainder=from_message(message.remainder_log_probs, "remainder_log_probs").float32(),
        vocab_size=message.vocab_size,
        blank_id=message.blank_id,
    )


def voices_of(message: pb.SpeakerEmbeddings, duration: float) -> SegmentEmbeddings:
    """Checked numpy views of the voices of a segment of `duration` seconds."""
    embeddings = from_message(message.embeddings, "speakers.embeddings").float32()
    if not embeddings.ndim == 2 or not len(embeddings) == len(message.starts) == len(message.ends):
        raise InternalError("the encoder sent speaker windows that do not fit their embeddings")
    return SegmentEmbeddings(
        start=0.0,
        end=duration,
        embeddings=embeddings,
        starts=np.array([seconds(time) for time in message.starts]),
        ends=np.array([seconds(time) for time in message.ends]),
    )
