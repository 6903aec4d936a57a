"""A shell that stays open, as a reader's terminal does: what a block exports or starts, the next one has."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path


class Shell:
    """One bash in `folder`. Its output, and that of everything it starts, goes to a file outside of it."""

    def __init__(self, folder: Path, environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        self._read, write = os.pipe()
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                ["bash", "--noprofile", "--norc"],
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(write,),
                process_group=0,
            )
        os.close(write)
        self._done = f"echo done >&{write}\n"
        self._scripts = 0
        assert self.process.stdin is not None
        # The shell outlives its programs, so that each of them can be waited for.
        self.process.stdin.write(b"trap : TERM\n")
        self.process.stdin.flush()

    def start(self, script: str) -> None:
        """Run it without waiting. The first command that fails ends the shell."""
        assert self.process.stdin is not None
        self._scripts += 1
        file = self._log.with_suffix(f".{self._scripts}.sh")
        file.write_text(script, encoding="utf-8")
        # Standard input is the terminal's: programs must not read our commands from it.
        self.process.stdin.write(f"set -eo pipefail\n. {file} </dev/null\n{self._done}".encode())
        self.process.stdin.flush()

    def run(self, script: str, timeout: float = 120.0) -> str:
        """What the script and programs in the background print. AssertionError with it when one fails."""
        if self.process.poll() is not None:
            raise AssertionError("an earlier block of this page has failed")
        before = self._log.stat().st_size
        self.start(script)
        deadline = time.monotonic() + timeout
        while not self._is_done():
            code = self.process.poll()
            if code is not None or time.monotonic() > deadline:
                what = f"not done in {timeout:g} s" if code is None else f"failed with exit code {code}"
                raise AssertionError(f"{what}:\n{self.output(before)}")
        return self.output(before)

    def _is_done(self) -> bool:
        """Whether the shell has said so by now. Its end is no answer, and not always the pipe's: programs in
        the background keep that open."""
        if not select.select([self._read], [], [], 0.05)[0]:
            return False
        if os.read(self._read, 64):
            return True
        self.process.wait()
        return False

    def output(self, since: int = 0) -> str:
        return self._log.read_bytes()[since:].decode(errors="replace")

    def close(self, grace: float = 20.0) -> None:
        """End the shell and all that it started, first with SIGTERM."""
        assert self.process.stdin is not None
        self._signal(signal.SIGTERM)
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(b"until wait; do :; done\n")
            self.process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(grace)
        self._signal(signal.SIGKILL)
        self.process.wait()
        os.close(self._read)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)
