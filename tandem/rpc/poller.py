"""Which of gRPC's event engines a tier runs on; chosen by a tier's package, before anything imports grpc."""

from __future__ import annotations

import os

_VARIABLE = "GRPC_EXPERIMENTS"
_COMPLETION_QUEUES = "-event_engine_client,-event_engine_listener"


def poll_in_completion_queues() -> None:
    """The thread that hands results to Python reads the sockets too, as in gRPC's older engine.

    With the newer engine two more threads wake one another on the way of each message: an empty round trip
    takes 1.5 times as long. gRPC reads this when it is imported, and a release that has only the newer engine
    passes over it. What the operator has set stays.
    """
    os.environ.setdefault(_VARIABLE, _COMPLETION_QUEUES)
