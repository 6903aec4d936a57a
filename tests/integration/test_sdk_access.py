"""SDK, command line and batches of a guarded server: certificates and key get in, nothing less does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from tandem import AutoModelVLLM, BatchClient, RecognizeOptions
from tandem.access import Access
from tandem.errors import Unauthenticated
from tests.support.secure import SecureStack
from tests.support.services import NANO

RECORDING = NANO / "mandarin_206ms.wav"


@pytest.fixture
def services(secure_services: SecureStack) -> SecureStack:
    return secure_services


@pytest.fixture
def access(services: SecureStack) -> Access:
    return replace(services.access, server_name="tier.test")


def test_the_sdk_gets_in_with_all_of_them(services: SecureStack, access: Access) -> None:
    with AutoModelVLLM(server=services.gateway, access=access) as model:
        assert model.generate(RECORDING, max_new_tokens=3)[0]["key"] == "mandarin_206ms"
    keyless = AutoModelVLLM(server=services.gateway, access=replace(access, api_key=""))
    with pytest.raises(Unauthenticated, match=r"mandarin_206ms\.wav: "):
        keyless.generate(RECORDING)


def test_batches_get_in_with_all_of_them(services: SecureStack, access: Access) -> None:
    with BatchClient(services.gateway, access=access) as batches:
        batch_id = batches.start(RECORDING, RecognizeOptions(max_new_tokens=3))
        assert [item.error for item in batches.results(batch_id)] == [None]
    with BatchClient(services.gateway, access=replace(access, api_key="")) as keyless:
        with pytest.raises(Unauthenticated):
            keyless.status(batch_id)
        with pytest.raises(Unauthenticated):
            keyless.start(RECORDING)


def run(access: Access, server: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of `tandem` with the certificates as flags and the key in the environment."""
    flags = ["--server", server, "--tls-ca", access.ca, "--tls-cert", access.certificate]
    flags += ["--tls-key", access.key, "--tls-server-name", access.server_name]
    command = [sys.executable, "-m", "tandem", *arguments, *map(str, flags)]
    environment = {**os.environ, "TANDEM_API_KEY": access.api_key}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("with_key", [True, False])
def test_commands_take_the_key_from_the_environment(
    services: SecureStack, access: Access, with_key: bool
) -> None:
    own = access if with_key else replace(access, api_key="")
    output = ["--max-new-tokens", "3", "--format", "jsonl"]
    done = run(own, services.gateway, "transcribe", str(RECORDING), *output)
    live = run(own, services.gateway, "stream", "--file", str(RECORDING))
    assert done.returncode == live.returncode == (0 if with_key else 1)
    if with_key:
        assert json.loads(done.stdout)["key"] == "mandarin_206ms"
    else:
        assert "mandarin_206ms.wav: " in done.stderr
        assert "a valid API key is needed" in live.stderr
