"""Where running Python processes spend their time, by py-spy's samples."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

RATE = 200
"""Samples a second."""


@dataclass(slots=True)
class Profile:
    """Stacks that were seen, outermost frame first, with the number of samples."""

    stacks: Counter[tuple[str, ...]] = field(default_factory=Counter)

    @classmethod
    def read(cls, path: Path) -> Profile:
        """From py-spy's raw format: frames joined by semicolons, then the count."""
        profile = cls()
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            stack, _, count = line.rpartition(" ")
            profile.stacks[tuple(stack.split(";"))] += int(count)
        return profile

    @property
    def samples(self) -> int:
        return self.stacks.total()

    def own(self) -> Counter[str]:
        """Samples by the innermost frame."""
        found: Counter[str] = Counter()
        for stack, count in self.stacks.items():
            found[stack[-1]] += count
        return found

    def inclusive(self) -> Counter[str]:
        """Samples by every frame on the stack."""
        found: Counter[str] = Counter()
        for stack, count in self.stacks.items():
            for frame in set(stack):
                found[frame] += count
        return found


def find() -> str | None:
    """py-spy's executable; None where it is not installed."""
    return shutil.which("py-spy")


def record(processes: Mapping[str, int], seconds: int, *, gil: bool, keep: Path) -> dict[str, Profile]:
    """Profiles of processes by name, taken side by side; raw files stay in `keep`.

    gil: only samples of threads that hold the GIL, else of all that are not idle. A process that cannot be
    read is left out, and why is printed.
    """
    keep.mkdir(parents=True, exist_ok=True)
    spies = {
        name: _Spy(pid, seconds, gil, keep / f"{name.replace(' ', '-')}.raw")
        for name, pid in processes.items()
    }
    found = {}
    for name, spy in spies.items():
        with contextlib.suppress(subprocess.TimeoutExpired):
            spy.process.wait(seconds + 60)
        if spy.output.is_file():
            found[name] = Profile.read(spy.output)
        else:
            print(f"py-spy {name}: {spy.complaint()}", file=sys.stderr, flush=True)
    return found


class _Spy:
    """One py-spy process."""

    def __init__(self, pid: int, seconds: int, gil: bool, output: Path) -> None:
        self.output = output
        self._log = output.with_suffix(".log")
        output.unlink(missing_ok=True)
        command = [find() or "py-spy", "record", "--pid", str(pid), "--duration", str(seconds)]
        command += ["--rate", str(RATE), "--format", "raw", "--threads", "--output", str(output)]
        command += ["--gil"] if gil else []
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

    def complaint(self) -> str:
        """What py-spy printed."""
        self.process.kill()
        self.process.wait()
        return self._log.read_text(errors="replace")[-500:].strip()


def lines(name: str, profile: Profile, seconds: int, top: int = 25) -> Iterator[str]:
    """A report: shares are of the time sampled, so several running threads add up to more than 100 %."""
    total = seconds * RATE
    yield f"{name}: {profile.samples / total:.0%} of the time"
    for title, counts in (("self", profile.own()), ("inclusive", profile.inclusive())):
        yield f"  {title}"
        for frame, count in counts.most_common(top):
            yield f"    {count / total:6.1%}  {frame}"
