"""Clients of all languages over mutual TLS with an API key."""

from __future__ import annotations

import pytest

from tests.clients.programs import LANGUAGES, example, run
from tests.support.secure import SecureStack
from tests.support.services import NANO


@pytest.mark.parametrize("language", LANGUAGES)
def test_mutual_tls_and_api_key(secure_services: SecureStack, language: str) -> None:
    secure, start = secure_services, example(language, "recognize")
    command = start(["-target", secure.gateway, "-ca", str(secure.authority.ca)])
    own = ["-cert", str(secure.client.cert), "-key", str(secure.client.key)]
    recording = str(NANO / "mandarin_206ms.wav")

    outcome = run([*command, *own, "-api-key", secure.key, "-json", recording])
    assert outcome.code == 0, outcome.errors
    assert outcome.lines[0]["audioDuration"].startswith("0.20")

    refused = run([*command, *own, "-api-key", "wrong", recording])
    assert refused.code == 1
    assert "reason: UNAUTHENTICATED" in refused.errors

    stranger = run([*command, "-api-key", secure.key, recording], timeout=60)
    assert stranger.code == 1
    assert "unavailable" in stranger.errors.lower()


@pytest.mark.parametrize("language", LANGUAGES)
def test_batches_go_over_the_same_connection(secure_services: SecureStack, language: str) -> None:
    secure, start = secure_services, example(language, "batch")
    command = start(["-target", secure.gateway, "-ca", str(secure.authority.ca)])
    command += ["-cert", str(secure.client.cert), "-key", str(secure.client.key)]
    recording = str(NANO / "mandarin_206ms.wav")

    outcome = run([*command, "-api-key", secure.key, "-json", recording])
    assert outcome.code == 0, outcome.errors
    assert outcome.lines[0]["response"]["audioDuration"].startswith("0.20")

    refused = run([*command, "-api-key", "wrong", recording])
    assert refused.code == 1
    assert "UNAUTHENTICATED" in refused.errors.upper()
