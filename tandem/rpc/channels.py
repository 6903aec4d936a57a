"""Channels and servers: one place for message limits, keepalive and retry policy, so that both ends agree."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import grpc.aio

from tandem.access import Access

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
KEEPALIVE_MS = 30_000
KEEPALIVE_TIMEOUT_MS = 10_000

_RETRY = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
    "loadBalancingConfig": [{"round_robin": {}}],
}


def channel_options(max_message_bytes: int = MAX_MESSAGE_BYTES) -> list[tuple[str, Any]]:
    """Options of a client channel: limits, keepalive below the servers' minimum interval, retries."""
    return [
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        # gRPC's own limit of two minutes is how long a server would stay unused after it has come back.
        ("grpc.max_reconnect_backoff_ms", 5_000),
        ("grpc.enable_retries", 1),
        ("grpc.service_config", json.dumps(_RETRY)),
    ]


def server_options(max_message_bytes: int = MAX_MESSAGE_BYTES) -> list[tuple[str, Any]]:
    """Options of a server: the same limits and keepalive, and pings of idle clients allowed every 10 s.

    A client whose host is gone says nothing more, and by itself gRPC looks after two hours. Here its calls
    end, and what they hold is freed, when its kernel has not taken a ping within the timeout; a process that
    only stands still has gRPC's minute to answer one.
    """
    return [
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.so_reuseport", 0),
    ]


def connect(
    target: str, extra: Sequence[tuple[str, Any]] = (), access: Access | None = None
) -> grpc.aio.Channel:
    """A channel to `host:port`, `dns:///name:port` or `unix:path`; encrypted where `access` says so."""
    return (access or Access()).aio_channel(target, [*channel_options(), *extra])
