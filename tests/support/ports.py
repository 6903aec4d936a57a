"""Ports for servers of tests: none twice, none that a client's connection may take meanwhile."""

from __future__ import annotations

import itertools
import os
import random
import socket

# Below Linux's range for connections, and apart for test processes that run side by side.
_FIRST, _SHARE, _WORKERS = 11_000, 5_000, 4
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
_start = random.SystemRandom().randrange(_SHARE)
_numbers = (_FIRST + _worker * _SHARE + (_start + count) % _SHARE for count in itertools.count())


def free_port() -> int:
    """A TCP port that nothing listens on and this process has not been given before."""
    for port in itertools.islice(_numbers, _SHARE):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no port is free")
