"""Ties a child process to its launcher: when that is gone, however it ended, the child ends too.

The child's standard input is a pipe that only the launcher holds open. A death signal would do the same,
but must be set between fork and exec, and a fork of a process that has gRPC channels may crash.
"""

from __future__ import annotations

import os
import signal
import threading

VARIABLE = "TANDEM_ENDS_WITH_PARENT"


def watch_parent() -> None:
    """Send this process SIGTERM when its standard input ends, if its launcher asked for that."""
    if os.environ.get(VARIABLE) == "1":
        threading.Thread(target=_wait, name="parent-watch", daemon=True).start()


def _wait() -> None:
    while os.read(0, 4096):
        continue
    os.kill(os.getpid(), signal.SIGTERM)
