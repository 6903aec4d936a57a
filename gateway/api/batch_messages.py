"""Batches and their recordings as messages of tandem.asr.v1."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from gateway.batch.batch import Batch, BatchRecording, Stage, State
from tandem.asr.v1 import asr_pb2
from tandem.asr.v1 import batch_pb2 as pb
from tandem.errors import Cancelled, TandemError
from tandem.rpc.durations import duration
from tandem.rpc.status import to_status

_STAGES = {
    Stage.WAITING: pb.BatchRecordingStatus.STATE_WAITING,
    Stage.RUNNING: pb.BatchRecordingStatus.STATE_RUNNING,
    Stage.SUCCEEDED: pb.BatchRecordingStatus.STATE_SUCCEEDED,
    Stage.FAILED: pb.BatchRecordingStatus.STATE_FAILED,
    Stage.CANCELLED: pb.BatchRecordingStatus.STATE_CANCELLED,
}
_STATES = {
    State.OPEN: pb.Batch.STATE_OPEN,
    State.RUNNING: pb.Batch.STATE_RUNNING,
    State.DONE: pb.Batch.STATE_DONE,
    State.CANCELLED: pb.Batch.STATE_CANCELLED,
}


def batch_message(batch: Batch) -> pb.Batch:
    """The batch without transcripts."""
    return pb.Batch(
        batch_id=batch.batch_id,
        state=_STATES[batch.state],
        progress_percent=batch.progress_percent,
        recordings=[_recording_message(item) for item in batch.recordings.values()],
        create_time=_timestamp(batch.created),
        expire_time=None if batch.expires is None else _timestamp(batch.expires),
    )


def progress_message(batch: Batch) -> pb.BatchProgress:
    return pb.BatchProgress(
        state=_STATES[batch.state],
        progress_percent=batch.progress_percent,
        finished_recordings=sum(item.is_finished for item in batch.recordings.values()),
        total_recordings=len(batch.recordings),
    )


def result_message(recording: BatchRecording) -> pb.BatchResult:
    """The result of a finished recording; reads its transcript from disk."""
    if recording.stage is Stage.SUCCEEDED:
        response = asr_pb2.RecognizeResponse.FromString(recording.result.read_bytes())
        return pb.BatchResult(key=recording.key, response=response)
    return pb.BatchResult(key=recording.key, error=_status(recording.error or Cancelled("cancelled")))


def _recording_message(item: BatchRecording) -> pb.BatchRecordingStatus:
    return pb.BatchRecordingStatus(
        key=item.key,
        state=_STAGES[item.stage],
        error=None if item.error is None else _status(item.error),
        audio_duration=duration(item.duration) if item.duration else None,
    )


def _status(error: TandemError) -> pb.Status:
    return pb.Status.FromString(to_status(error).SerializeToString())


def _timestamp(seconds: float) -> Timestamp:
    stamp = Timestamp()
    stamp.FromMilliseconds(round(seconds * 1000))
    return stamp
