"""From results to response messages: headers, chunked tensors, compact posteriors, timing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from encoder_service.batcher import Encoded
from encoder_service.messages import CompactCtc, EncodedAudio, FloatArray, SpeakerWindows
from tandem.ctc import best_path
from tandem.encoder.v1 import encoder_pb2 as pb
from tandem.rpc.durations import duration
from tandem.rpc.tensors import WireTensor, chunks, to_message
from tandem.tensor.v1 import tensor_pb2

EMBEDS = "audio_embeds"
DENSE_CTC = "ctc_log_probs"
ENCODER_OUT = "encoder_out"
TARGETS = "target_log_probs"


def header(audio: EncodedAudio) -> pb.EncodeHeader:
    return pb.EncodeHeader(num_frames=audio.num_frames, num_embeds=audio.num_embeds)


def timing(encoded: Encoded) -> pb.EncodeTiming:
    times = encoded.audio.times
    return pb.EncodeTiming(
        queue=duration(encoded.queue_seconds),
        frontend=duration(times.frontend),
        compute=duration(times.compute),
        batch_size=encoded.audio.batch_size,
        speakers=duration(times.speakers),
    )


def compact_message(ctc: CompactCtc) -> tensor_pb2.CompactLogProbs:
    """Log-probabilities travel as float16: alignment cannot tell a hundredth of a nat apart."""

    def half(array: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> tensor_pb2.Tensor:
        return to_message(WireTensor.of(array.astype(np.float16)))

    return tensor_pb2.CompactLogProbs(
        top_ids=to_message(WireTensor.of(ctc.top_ids)),
        top_log_probs=half(ctc.top_log_probs),
        blank_log_probs=half(ctc.blank_log_probs),
        remainder_log_probs=half(ctc.remainder_log_probs),
        vocab_size=ctc.vocab_size,
        blank_id=ctc.blank_id,
    )


def path_message(ctc: CompactCtc) -> pb.CtcPath:
    """What the CTC branch hears, token by token."""
    token_ids, frames = best_path(ctc.top_ids, ctc.top_log_probs, ctc.blank_log_probs, ctc.blank_id)
    return pb.CtcPath(token_ids=token_ids, frames=frames)


def speaker_message(windows: SpeakerWindows) -> pb.SpeakerEmbeddings:
    return pb.SpeakerEmbeddings(
        embeddings=to_message(WireTensor.of(windows.embeddings)),
        starts=[duration(float(time)) for time in windows.starts],
        ends=[duration(float(time)) for time in windows.ends],
    )


def encode_responses(encoded: Encoded) -> Iterator[pb.EncodeResponse]:
    """The whole answer of Encode."""
    audio = encoded.audio
    yield pb.EncodeResponse(header=header(audio))
    if audio.embeds is not None:
        yield from (pb.EncodeResponse(chunk=chunk) for chunk in chunks(EMBEDS, audio.embeds))
    if audio.compact is not None:
        yield pb.EncodeResponse(compact_ctc=compact_message(audio.compact))
    for name, array in ((DENSE_CTC, audio.dense), (ENCODER_OUT, audio.encoder_out)):
        if array is not None:
            yield from (pb.EncodeResponse(chunk=chunk) for chunk in chunks(name, WireTensor.of(array)))
    if audio.speakers is not None:
        yield pb.EncodeResponse(speakers=speaker_message(audio.speakers))
    yield pb.EncodeResponse(timing=timing(encoded))


def ctc_responses(audio: EncodedAudio) -> Iterator[pb.TranscribeResponse]:
    """The part of Transcribe's answer that needs no decoder."""
    yield pb.TranscribeResponse(header=header(audio))
    if audio.compact is not None:
        yield pb.TranscribeResponse(compact_ctc=compact_message(audio.compact))
    if audio.dense is not None:
        pieces = chunks(DENSE_CTC, WireTensor.of(audio.dense))
        yield from (pb.TranscribeResponse(chunk=chunk) for chunk in pieces)
    if audio.speakers is not None:
        yield pb.TranscribeResponse(speakers=speaker_message(audio.speakers))


def ctc_answer(audio: EncodedAudio) -> pb.TranscribeAnswer:
    """The same in one message, but for the header and dense posteriors."""
    compact = compact_message(audio.compact) if audio.compact is not None else None
    speakers = speaker_message(audio.speakers) if audio.speakers is not None else None
    return pb.TranscribeAnswer(compact_ctc=compact, speakers=speakers)


def target_responses(log_probs: FloatArray) -> Iterator[pb.TranscribeResponse]:
    """Log-probabilities float32 [T, n + 1] of targets and blank."""
    yield from (pb.TranscribeResponse(chunk=chunk) for chunk in chunks(TARGETS, WireTensor.of(log_probs)))
