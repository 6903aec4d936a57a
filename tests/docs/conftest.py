"""A reader's working directory, one shell for each page, and one running stack for all of them."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import soundfile

from tandem.launcher import is_ready
from tests.docs.blocks import ROOT, all_blocks
from tests.docs.shell import Shell
from tests.support.ports import free_port

_PORT = re.compile(r"\b(?:5005\d|5006\d|88\d\d|10095|91\d\d)\b")
_SERVE_FLAGS = {
    "port": 50051,
    "encoder-port": 50052,
    "decoder-port": 50053,
    "http-port": 8899,
    "realtime-port": 10095,
}
_START_SECONDS = 120
_RECORDINGS = ("meeting.wav", "call.wav", "clip.wav", "talk.mp3")
"""Names that the pages use for the reader's own recordings."""


@dataclass(slots=True)
class Ports:
    """Free ports in place of those that the pages name, which may be taken here."""

    chosen: dict[str, int] = field(default_factory=dict)

    def of(self, documented: int | str) -> int:
        return self.chosen.setdefault(str(documented), free_port())

    def substitute(self, text: str) -> str:
        return _PORT.sub(lambda match: str(self.of(match[0])), text)


@pytest.fixture(scope="session")
def ports() -> Ports:
    return Ports()


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a checkout with recordings of the reader's own; what is written here stays here."""
    folder = tmp_path_factory.mktemp("checkout")
    for entry in ROOT.iterdir():
        if not entry.name.startswith("."):
            (folder / entry.name).symlink_to(entry)
    environment = folder / ".venv" / "bin"
    environment.mkdir(parents=True)
    (environment / "activate").write_text(f'PATH="{Path(sys.executable).parent}:$PATH"\n')
    samples, rate = soundfile.read(ROOT / "examples" / "meeting.flac", dtype="int16")
    for name in _RECORDINGS:
        soundfile.write(folder / name, samples, rate)
    return folder


@pytest.fixture(scope="session")
def environment(derived_files: None) -> dict[str, str]:
    """This process's, with the programs of its Python installation found first and no server chosen."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    kept = {name: value for name, value in os.environ.items() if name != "TANDEM_SERVER"}
    return {**kept, "PATH": path, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}


@pytest.fixture(scope="session")
def services(
    workplace: Path, environment: dict[str, str], ports: Ports, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """What the first `serves` block starts: the gRPC address of its gateway."""
    block = next(block for block in all_blocks() if block.mark == "serves")
    flags = " ".join(f"--{name} {ports.of(port)}" for name, port in _SERVE_FLAGS.items())
    script, count = re.subn(r"^(tandem serve.*)$", rf"\1 {flags}", block.text, flags=re.M)
    assert count == 1, f"{block.name} does not start the services"
    shell = Shell(workplace, environment, tmp_path_factory.mktemp("services") / "log")
    try:
        shell.start(script)
        target = f"localhost:{ports.of(50051)}"
        deadline = time.monotonic() + _START_SECONDS
        while not is_ready(target):
            assert shell.process.poll() is None and time.monotonic() < deadline, shell.output()
            time.sleep(0.2)
        yield target
    finally:
        shell.close()


@pytest.fixture(scope="session")
def shells(
    workplace: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Shell]]:
    """A shell for each page that has commands, opened when first asked for."""
    logs = tmp_path_factory.mktemp("shells")

    class Opened(dict[str, Shell]):
        def __missing__(self, page: str) -> Shell:
            self[page] = Shell(workplace, environment, logs / f"{page.replace('/', '-')}.log")
            return self[page]

    opened = Opened()
    try:
        yield opened
    finally:
        for shell in opened.values():
            shell.close()
