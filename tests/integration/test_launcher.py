"""The launcher's promise: no tier outlives the process that started it, or suffers from its channels."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import grpc
import pytest

from tandem import RecognizeOptions
from tandem.api_keys import new_key
from tandem.client import Client
from tandem.errors import LimitExceeded
from tandem.launcher import Addresses, LaunchError, Stack, StackConfig, private_stack, spawn, wait_ready
from tandem.local import EngineOptions, LocalServices
from tests.support.certificates import Authority
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


@contextlib.contextmanager
def local_services() -> Iterator[str]:
    """What `tandem transcribe` and the SDK start for themselves."""
    options = EngineOptions(model=str(NANO), engine="transformers", gateways=1)
    with contextlib.closing(LocalServices(options)) as services:
        yield services.addresses[0]


@contextlib.contextmanager
def private_services() -> Iterator[str]:
    """What benchmarks start for themselves."""
    with private_stack(str(NANO), engine="transformers") as stack:
        yield stack.address


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


MODULES = {
    "gateway": ["--http-port", "0", "--realtime-port", "0"],
    "encoder_service": ["--model", str(NANO)],
    "decoder_service": ["--model", str(NANO), "--engine", "transformers"],
}


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("flag", ["--listen", "--health-listen"])
def test_a_tier_whose_port_is_taken_says_so_in_one_line(module: str, flag: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        command = [sys.executable, "-m", module, *MODULES[module], "--listen", f"unix:{tmp_path}/tier.sock"]
        done = subprocess.run(
            [*command, flag, address], capture_output=True, text=True, timeout=120, check=False
        )
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith(f": cannot listen on {address}: in use?")
    assert "Traceback" not in done.stderr


def test_a_gateway_without_weights_says_in_one_line_where_they_come_from(tmp_path: Path) -> None:
    flags = ["--listen", f"unix:{tmp_path}/gateway.sock", *MODULES["gateway"], "--vad-model", str(tmp_path)]
    command = [sys.executable, "-m", "gateway", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert "VAD weights are missing" in line
    for remedy in ("scripts/fetch_models.py", "--vad-model", "TANDEM_GATEWAY_VAD_MODEL"):
        assert remedy in line
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("start", [local_services, private_services])
def test_services_of_ones_own_want_neither_keys_nor_certificates(
    start: Callable[[], AbstractContextManager[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is meant for the services of many is not for them; other variables are."""
    certificate = Authority(tmp_path).issue("server")
    (tmp_path / "keys").write_text(f"{new_key('somebody')[1]}\n", encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for tier in ("GATEWAY", "ENCODER", "DECODER"):
            monkeypatch.setenv(f"TANDEM_{tier}_TLS_CERT", str(certificate.cert))
            monkeypatch.setenv(f"TANDEM_{tier}_TLS_KEY", str(certificate.key))
            monkeypatch.setenv(f"TANDEM_{tier}_HEALTH_LISTEN", f"127.0.0.1:{taken.getsockname()[1]}")
        monkeypatch.setenv("TANDEM_GATEWAY_API_KEYS", str(tmp_path / "keys"))
        monkeypatch.setenv("TANDEM_GATEWAY_MAX_AUDIO_DURATION", "5")
        with start() as address, Client(address) as client:
            options = RecognizeOptions(vad=False, max_new_tokens=3)
            assert client.recognize(NANO / "mandarin_206ms.wav", options, timeout=60).segments
            with pytest.raises(LimitExceeded):
                client.recognize(NANO / "english_9s.wav", options, timeout=60)


def test_a_second_decoder_waits_for_the_first_which_says_why_it_cannot_start(tmp_path: Path) -> None:
    addresses = Addresses.unix(tmp_path, encoders=2, decoders=2)
    stack = Stack(StackConfig(str(tmp_path), addresses, engine="transformers", log_dir=tmp_path))
    with pytest.raises(LaunchError, match=r"(?s)coder(-1)? exited with code.*holds no config\.yaml"):
        stack.__enter__()
    logs = {log.stem for log in tmp_path.glob("*.log")}
    assert logs == {"decoder", "encoder", "encoder-1", "gateway"}
    assert not stack.tiers


def test_a_tier_that_ends_is_started_again_but_not_for_ever(tmp_path: Path) -> None:
    said, failures = list[str](), list[LaunchError]()
    config = StackConfig(str(NANO), Addresses.unix(tmp_path), engine="transformers", log_dir=tmp_path)
    with Stack(config, on_progress=said.append) as stack:

        def wait() -> None:
            with pytest.raises(LaunchError) as caught:
                stack.wait()
            failures.append(caught.value)

        def kill(name: str) -> None:
            tier = next(tier for tier in stack.tiers if tier.name == name)
            os.killpg(tier.process.pid, signal.SIGKILL)

        def reached(line: str, times: int = 1) -> None:
            deadline = time.monotonic() + 60
            while said.count(line) < times:
                assert time.monotonic() < deadline, said
                time.sleep(0.05)

        said.clear()
        waiting = threading.Thread(target=wait)
        waiting.start()
        with Client(stack.address) as client:
            before = client.recognize(NANO / "english_9s.wav")
            kill("encoder")
            reached("encoder exited with code -9 and is started again")
            reached("encoder is ready")
            assert client.recognize(NANO / "english_9s.wav").text == before.text
        # Its log goes on where it was.
        assert (tmp_path / "encoder.log").read_text().count("listening on") == 2
        for times in range(1, 4):
            kill("gateway")
            reached("gateway is ready", times)
        kill("gateway")
        waiting.join(60)
        assert not waiting.is_alive()
    assert "gateway exited with code -9" in str(failures[0])
    assert said.count("gateway exited with code -9 and is started again") == 3


def test_a_tier_that_ends_before_it_is_ready_again_is_not_started_any_more(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(NANO, model)
    config = StackConfig(str(model), Addresses.unix(tmp_path), engine="transformers", log_dir=tmp_path)
    with Stack(config) as stack:
        (model / "config.yaml").unlink()
        os.killpg(stack.tiers[1].process.pid, signal.SIGKILL)
        with pytest.raises(LaunchError, match=r"(?s)encoder exited with code 1.*holds no config\.yaml"):
            stack.wait()
