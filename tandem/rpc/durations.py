"""Seconds to google.protobuf.Duration and back."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration


def duration(seconds: float) -> Duration:
    """A Duration, rounded to microseconds."""
    micros = round(seconds * 1e6)
    return Duration(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1000)


def seconds(message: Duration) -> float:
    """To the microsecond, as `duration` writes it."""
    return round(message.seconds + message.nanos / 1e9, 6)
