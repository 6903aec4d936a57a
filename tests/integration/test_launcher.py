"""The launcher's promise: no tier outlives the process that started it, or suffers from its channels."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest

from tandem.launcher import Addresses, LaunchError, Stack, StackConfig, spawn, wait_ready
from tests.support.services import NANO, encoder

PARENT = """
import sys, time
from pathlib import Path
from tandem.launcher import spawn, wait_ready
address, directory, model = sys.argv[1:]
tier = spawn("encoder", "encoder_service", ["--model", model, "--listen", address], address, Path(directory))
wait_ready([tier], timeout=60)
print(tier.process.pid, flush=True)
time.sleep(600)
"""


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_tier_ends_when_its_launcher_is_killed(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/encoder.sock"
    command = [sys.executable, "-c", PARENT, address, str(tmp_path), str(NANO)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert alive(child)
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive(child)


def test_tiers_start_beside_open_channels() -> None:
    with grpc.insecure_channel("localhost:1") as channel:
        with pytest.raises(grpc.FutureTimeoutError):
            grpc.channel_ready_future(channel).result(timeout=0.2)
        for _ in range(3):
            with encoder() as address:
                assert address.startswith("unix:")


def test_a_gateway_that_waits_for_an_encoder_ends_in_order(tmp_path: Path) -> None:
    address, nowhere = f"unix:{tmp_path}/gateway.sock", f"unix:{tmp_path}/encoder.sock"
    flags = ["--encoder", nowhere, "--listen", address, "--http-port", "0", "--realtime-port", "0"]
    tier = spawn("gateway", "gateway", flags, address, tmp_path)
    log = tmp_path / "gateway.log"
    deadline = time.monotonic() + 60
    while "waiting for the encoder" not in log.read_text(encoding="utf-8"):
        assert tier.process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    tier.process.terminate()
    assert tier.process.wait(timeout=30) == 0
    assert "leaked" not in log.read_text(encoding="utf-8")


def test_a_tier_that_cannot_start_is_named_with_its_log(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/encoder.sock"
    tier = spawn("encoder", "encoder_service", ["--model", str(tmp_path)], address, tmp_path)
    with pytest.raises(LaunchError, match=r"(?s)encoder exited with code 1.*holds no config\.yaml"):
        wait_ready([tier], timeout=60)
    tier.end(grace=1)


def test_a_second_decoder_waits_for_the_first_which_says_why_it_cannot_start(tmp_path: Path) -> None:
    addresses = Addresses.unix(tmp_path, encoders=2, decoders=2)
    stack = Stack(StackConfig(str(tmp_path), addresses, engine="transformers", log_dir=tmp_path))
    with pytest.raises(LaunchError, match=r"(?s)coder(-1)? exited with code.*holds no config\.yaml"):
        stack.__enter__()
    logs = {log.stem for log in tmp_path.glob("*.log")}
    assert logs == {"decoder", "encoder", "encoder-1", "gateway"}
    assert not stack.tiers
